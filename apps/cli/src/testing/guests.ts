/** The smallest guests: a few bytes of 32-bit code behind a Multiboot header, or of 16-bit code as firmware. Not part of the package. */

const MAGIC = 0x1bad_b002
/** The header says itself where things go ("a.out kludge"). */
const FLAGS = 0x1_0000
const LOAD = 0x10_0000
const HEADER = 32

export function multibootGuest(code: readonly number[]): Uint8Array {
  const image = new Uint8Array(HEADER + code.length)
  const view = new DataView(image.buffer)
  const words = [MAGIC, FLAGS, -(MAGIC + FLAGS), LOAD, LOAD, 0, 0, LOAD + HEADER]
  words.forEach((word, index) => view.setUint32(index * 4, word >>> 0, true))
  image.set(code, HEADER)
  return image
}

/** Flat firmware of 64 KiB: the reset vector jumps to 16-bit code at its start. */
export function firmwareImage(code: readonly number[]): Uint8Array {
  const image = new Uint8Array(0x10000)
  image.set(code)
  image.set([0xea, 0x00, 0x00, 0x00, 0xf0], 0xfff0)
  return image
}

const bytesOf = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff)
const outb = (port: number, value: number): number[] => [0x66, 0xba, port & 0xff, port >> 8, 0xb0, value, 0xee]

/** Instructions, by what they do. */
export const Code = {
  print: (text: string): number[] => [...new TextEncoder().encode(text)].flatMap((byte) => outb(0x3f8, byte)),
  /** isa-debug-exit with any status (packages/image/README.md, "How a status leaves the guest"). */
  exit: (status: number): number[] => [0x66, 0xba, 0xf4, 0x00, 0xb8, ...bytesOf(0x4e52_0000 | status), 0xef],
  powerOff: [0x66, 0xba, 0x04, 0x06, 0x66, 0xb8, 0x00, 0x34, 0x66, 0xef],
  reset: outb(0xcf9, 6),
  loop: [0xeb, 0xfe],
  undefined: [0x0f, 0x0b],
  haltForEver: [0xfa, 0xf4, 0xeb, 0xfc],
  /** Has the power button reported by ACPI's PM1 event block at 0x600. */
  enableButton: [0x66, 0xba, 0x02, 0x06, 0x66, 0xb8, 0x00, 0x01, 0x66, 0xef],
  untilButton: [0x66, 0xba, 0x00, 0x06, 0x66, 0xed, 0xf6, 0xc4, 0x01, 0x74, 0xf9],
  /** With interrupts on and none to come. */
  idle: [0xfb, 0xf4, 0xeb, 0xfc],
  /** Waits for a byte on COM1 and sends it back. */
  echo: [0x66, 0xba, 0xfd, 0x03, 0xec, 0xa8, 0x01, 0x74, 0xf7, 0x66, 0xba, 0xf8, 0x03, 0xec, 0xee],
} as const
