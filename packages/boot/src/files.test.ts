/** Images as files that are read in parts: what a guest finds is the same as of bytes. */
import { readFileSync } from 'node:fs'
import { expect, it } from 'vitest'
import { gpa } from '@nonroot/contracts'
import type { BootContent, BootFile, BootImage, BootProtocol } from '@nonroot/contracts'
import { createFirmware } from './firmware.ts'
import { createBzImage, createElf64, createMachine, errorOf, memoryAt, PLATFORM } from './images.test.support.ts'
import { createLinux } from './linux.ts'
import { createMultiboot } from './multiboot.ts'
import { createPvh } from './pvh.ts'

const guestElf = (name: string) =>
  new Uint8Array(readFileSync(new URL(`../../../guests/${name}/${name}.elf`, import.meta.url)))

const fileOf = (bytes: Uint8Array): BootFile => ({
  length: bytes.length,
  read(at, length) {
    if (at + length > bytes.length) throw new Error(`the file ends at ${bytes.length}`)
    return bytes.slice(at, at + length)
  },
  readInto(at, views, done) {
    for (const view of views) {
      view.set(this.read(at, view.length))
      at += view.length
    }
    done()
  },
})

const patterned = (length: number) => Uint8Array.from({ length }, (_, at) => (at * 31) >> 3)

const images: { name: string; protocol: BootProtocol; image: BootImage<Uint8Array> }[] = [
  {
    name: 'linux, bzImage',
    protocol: createLinux(),
    image: { kernel: createBzImage().bytes, initrd: patterned(10_000) },
  },
  { name: 'linux, ELF', protocol: createLinux(), image: { kernel: createElf64().bytes, initrd: patterned(5) } },
  { name: 'pvh', protocol: createPvh(), image: { kernel: guestElf('demo'), initrd: patterned(0x3001) } },
  {
    name: 'multiboot',
    protocol: createMultiboot(),
    image: { kernel: guestElf('hello'), modules: [{ content: patterned(9000), cmdline: 'm' }] },
  },
  { name: 'firmware', protocol: createFirmware(), image: { firmware: patterned(0x40000) } },
]

const asFiles = ({ modules, ...files }: BootImage<Uint8Array>): BootImage => ({
  ...Object.fromEntries(Object.entries(files).map(([key, bytes]) => [key, fileOf(bytes as Uint8Array)])),
  ...(modules ? { modules: modules.map((one) => ({ ...one, content: fileOf(one.content) as BootContent })) } : {}),
})

it.each(images)('$name', ({ protocol, image }) => {
  const rom = { start: gpa(0xfffc0000), length: 0x40000, kind: 'rom' } as const
  const [ofBytes, ofFiles] = [createMachine(64, PLATFORM, [rom]), createMachine(64, PLATFORM, [rom])]
  const expected = protocol.load(image, ofBytes)
  expect(protocol.load(asFiles(image), ofFiles)).toEqual(expected)
  expect(expected.placed.length).toBeGreaterThan(1)
  for (const { start, length } of expected.placed)
    expect(memoryAt(ofFiles, start, length)).toEqual(memoryAt(ofBytes, start, length))
})

it.each(images)('$name, cut short', ({ protocol, image }) => {
  const cut = (bytes: Uint8Array | undefined) => (bytes ? { bytes: bytes.subarray(0, 70) } : undefined)
  const [kernel, firmware] = [cut(image.kernel), cut(image.firmware)]
  const of = (make: (bytes: Uint8Array) => BootContent): BootImage => ({
    ...(kernel ? { kernel: make(kernel.bytes) } : {}),
    ...(firmware ? { firmware: make(firmware.bytes) } : {}),
  })
  const message = (given: BootImage) => errorOf(() => protocol.load(given, createMachine()))!.message
  expect(message(of(fileOf))).toBe(message(of((bytes) => bytes)))
})
