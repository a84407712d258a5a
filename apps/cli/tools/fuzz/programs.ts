/**
 * Hostile guests as Multiboot images of 32-bit code: one that programs ports, registers and addresses at random, one whose code is
 * random bytes. An exception puts either at another place, so that it goes on.
 */

import { ADDRESSES, ENDING_PORTS, MSRS, PORTS } from './machine-facts.ts'
import type { Random } from './random.ts'

const BASE = 0x10_0000
const GDT = 0x40
const GDT_POINTER = 0x60
const IDT_POINTER = 0x68
const ENTRY = 0x80
const AFTER_FAULT = 0x100
const AFTER_INTERRUPT = 0x140
const IDT = 0x800
const RESTARTS = 0x1000 // 256 addresses
const NEXT = 0x1400 // the number of the next
const CODE = 0x2000
const STACK = 0x4_0000
const CODE_SELECTOR = 0x10
const DATA_SELECTOR = 0x18

const u16 = (value: number): number[] => [value & 0xff, (value >>> 8) & 0xff]
const u32 = (value: number): number[] => [...u16(value), ...u16(value >>> 16)]
const movEax = (value: number): number[] => [0xb8, ...u32(value)]
const movEcx = (value: number): number[] => [0xb9, ...u32(value)]
const movEdx = (value: number): number[] => [0xba, ...u32(value)]

/** Header, tables and handlers around `code`; exceptions take the addresses in `restarts` in turn. */
function image(code: readonly number[] | Uint8Array, restarts: readonly number[]): Uint8Array {
  const bytes = new Uint8Array(CODE + code.length)
  const view = new DataView(bytes.buffer)
  const flags = 0x1_0000
  const header = [0x1bad_b002, flags, -(0x1bad_b002 + flags), BASE, BASE, 0, 0, BASE + ENTRY]
  header.forEach((word, index) => view.setUint32(index * 4, word, true))
  const segments = [0n, 0n, 0x00cf_9b00_0000_ffffn, 0x00cf_9300_0000_ffffn]
  segments.forEach((segment, index) => view.setBigUint64(GDT + index * 8, segment, true))
  bytes.set([...u16(31), ...u32(BASE + GDT)], GDT_POINTER)
  bytes.set([...u16(0x7ff), ...u32(BASE + IDT)], IDT_POINTER)
  for (let vector = 0; vector < 256; vector++) {
    const handler = BASE + (vector < 32 ? AFTER_FAULT : AFTER_INTERRUPT)
    bytes.set([...u16(handler), ...u16(CODE_SELECTOR), 0, 0x8e, ...u16(handler >>> 16)], IDT + vector * 8)
  }
  const segmentLoads = [0xd8, 0xc0, 0xd0, 0xe0, 0xe8].flatMap((register) => [0x8e, register]) // mov ds, es, ss, fs, gs, ax
  const setUp = [0x66, 0xb8, ...u16(DATA_SELECTOR), ...segmentLoads, 0xbc, ...u32(BASE + STACK)]
  bytes.set(
    [
      ...[0x0f, 0x01, 0x15, ...u32(BASE + GDT_POINTER)], // lgdt
      ...[0x0f, 0x01, 0x1d, ...u32(BASE + IDT_POINTER)], // lidt
      ...setUp,
      ...[0xe9, ...u32(CODE - (ENTRY + 14 + setUp.length + 5))],
    ],
    ENTRY,
  )
  bytes.set(
    [
      ...setUp,
      ...[0x8b, 0x05, ...u32(BASE + NEXT)], // mov eax, [next]
      ...[0xff, 0x05, ...u32(BASE + NEXT)], // inc dword [next]
      ...[0x25, ...u32(0xff)], // and eax, 0xff
      ...[0xff, 0x24, 0x85, ...u32(BASE + RESTARTS)], // jmp [eax * 4 + restarts]
    ],
    AFTER_FAULT,
  )
  // push eax; mov al, 0x20; out 0xa0, al; out 0x20, al; mov [APIC's EOI], eax; pop eax; iret
  bytes.set([0x50, 0xb0, 0x20, 0xe6, 0xa0, 0xe6, 0x20, 0xa3, ...u32(0xfee0_00b0), 0x58, 0xcf], AFTER_INTERRUPT)
  restarts.forEach((at, index) => view.setUint32(RESTARTS + index * 4, BASE + CODE + at, true))
  bytes.set(code, CODE)
  return bytes
}

const value = (random: Random): number =>
  random.of([() => 0, () => 0xffff_ffff, () => 1 << random.below(32), () => random.below(256), random])()

const OPERATIONS: readonly ((random: Random) => number[])[] = [
  (random) => port(random),
  (random) => port(random),
  (random) => register(random),
  (random) => register(random),
  (random) => {
    const at = address(random)
    return random.chance(2) ? [0xc7, 0x05, ...u32(at), ...u32(value(random))] : [0xa1, ...u32(at)]
  },
  // One byte or two, and locked read-modify-write.
  (random) =>
    random.of([
      [0xc6, 0x05, ...u32(address(random)), random.below(256)],
      [0x66, 0xc7, 0x05, ...u32(address(random)), ...u16(random())],
      [...movEax(value(random)), 0xf0, 0x0f, 0xc1, 0x05, ...u32(address(random))],
      [0x0f, 0x7f, 0x05, ...u32(address(random))],
    ]),
  (random) => [
    ...movEax(random.of([random.below(32), 0x4000_0000 + random.below(17), 0x8000_0000 + random.below(32)])),
    0x31,
    0xc9,
    0x0f,
    0xa2,
  ],
  (random) => random.of([[0xfa], [0xfb], [0xfb, 0xfa], [0x0f, 0x31], [0x0f, 0x09], [0x0f, 0x01, 0xc1], [0xf3, 0x90]]),
  // VMX instructions, XGETBV, XSETBV, MONITOR, SMSW, LMSW, CLTS
  (random) => {
    const system = [[0xc2], [0xc3], [0xc4], [0xc8], [0xd0], [0xd1], [0xe0], [0xf0], [0xf9]]
    return random.chance(8)
      ? [0x0f, 0x06]
      : [...movEax(value(random)), ...movEcx(random.below(4)), 0x0f, 0x01, ...random.of(system)]
  },
  // String instructions of ports, into and out of anywhere
  (random) => [
    ...[0xbf, ...u32(address(random))],
    ...[0xbe, ...u32(address(random))],
    ...movEcx(random.below(5000)),
    ...movEdx(random.of(PORTS)),
    ...[0xf3, random.of([0x6c, 0x6d, 0x6e, 0x6f, 0xa4, 0xa5, 0xaa, 0xab])],
  ],
]

function port(random: Random): number[] {
  const known = random.chance(400) ? random.of(ENDING_PORTS) : random.of(PORTS) + random.below(2)
  const at = random.chance(8) ? random.below(0x1_0000) : known
  if (!random.chance(400) && ENDING_PORTS.includes(at as 0x64)) return [0x90]
  const access = random.of([[0xee], [0x66, 0xef], [0xef], [0xec], [0x66, 0xed], [0xed]])
  return [...movEdx(at), ...movEax(value(random)), ...access]
}

function register(random: Random): number[] {
  const [first, last] = random.of(MSRS)
  const number = random.chance(16) ? random() : first + random.below(last - first + 1)
  if (random.chance(3)) return [...movEcx(number), 0x0f, 0x32]
  return [...movEcx(number), ...movEax(value(random)), ...movEdx(random.chance(2) ? 0 : value(random)), 0x0f, 0x30]
}

const address = (random: Random): number => {
  const at = random.of(ADDRESSES)
  return random.chance(2) ? at : (at + random.below(0x1000)) >>> 0
}

/** Programs ports, MSRs and addresses, then jumps where nothing is. */
export function probingGuest(random: Random): Uint8Array {
  const code: number[] = []
  const starts: number[] = []
  for (let operation = 0; operation < 2000; operation++) {
    starts.push(code.length)
    code.push(...random.of(OPERATIONS)(random))
  }
  code.push(...movEax(address(random)), 0xff, 0xe0)
  const restarts = Array.from({ length: 256 }, (_, index) => starts[Math.floor((index * starts.length) / 256)]!)
  return image(code, restarts)
}

const HLT = 0xf4
const NOP = 0x90

/** System instructions with everything that a guest may have of them; bytes besides. */
const SEEDS = [
  [0x0f, 0x30],
  [0x0f, 0x32],
  [0xef],
  [0xed],
  [0x0f, 0x22, 0xc0],
  [0x0f, 0x22, 0xd8],
  [0x0f, 0x22, 0xe0],
  [0x0f, 0xa2],
  [0x0f, 0x01, 0x38],
  [0x0f, 0x00, 0xd8],
  [0x0f, 0x00, 0xd0],
  [0xcf],
  [0xcb],
  [0x0f, 0x07],
  [0x0f, 0x35],
  [0x0f, 0xaa],
  [0x8e, 0xd8],
  [0x8e, 0xd0],
  [0x9d],
  [0x0f, 0xae, 0x08],
  [0x0f, 0xae, 0x20],
  [0x0f, 0xae, 0x28],
  [0x0f, 0xc7, 0x30],
] as const

export function randomGuest(random: Random): Uint8Array {
  // HLT would end most of them: nothing wakes a guest whose interrupts are off.
  const code = Uint8Array.from({ length: 0x8000 }, () => random() >>> 24).map((byte) => (byte === HLT ? NOP : byte))
  for (let at = 0; at < code.length - 8; at += 16 + random.below(96)) code.set(random.of(SEEDS), at)
  return image(
    code,
    Array.from({ length: 256 }, () => random.below(code.length)),
  )
}
