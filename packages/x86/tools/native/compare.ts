/** Compares the processor's final states with ours, and describes what differs. */
import { disassemble } from '../../src/decode/disassemble.ts'
import { FX, STATE, USES, type Batch } from './batch.ts'
import type { Encoded } from './encode.ts'
import { APPROXIMATE, orderUnspecified, readsFirst, STATUS_FLAGS, undefinedFlags, undefinedResult, vendorsDiffer } from './rules.ts'

const NAMES = ['rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi', ...Array.from({ length: 8 }, (_, n) => `r${n + 8}`)]
const NONE = 0xffff_ffff
const DF = 0x400
const GP = 13
const PF = 14
const ES = 0x80
const FETCH = 0x10
const PRESENT = 1
const WRITE = 2
const RESUME = 0x1_0000

/** Names of what differs; empty when nothing does. `native` and `ours` are laid out alike, `state` is the offset in both. */
export function differences(encoded: Encoded, native: Batch, ours: Batch, input: number, state: number, flags: number, all: boolean): string[] {
  const found: string[] = []
  const { instruction: i, row } = encoded
  const a = native.u32, b = ours.u32
  if (vendorsDiffer(encoded, native, input)) return found
  arriveNowhere(encoded, native, state)
  const cl = a[(input >>> 2) + 2]! & 0xff
  if (undefinedResult(i, cl)) return found
  const at = state >>> 2
  const vector = (state + STATE.vector) >>> 2
  const long = i.codeSize === 64
  // Beyond a limit of 4 GiB less one an access may fault or wrap. (SDM Vol. 3A, "Limit Checking")
  if (!long && a[vector] === GP && b[vector] === PF && b[vector + 2]! >= 0xffff_fff0) return found
  if (orderUnspecified(row) && a[vector] !== NONE && b[vector] !== NONE) return found
  if (a[vector] !== b[vector]) {
    found.push(`vector ${a[vector]! | 0} ours ${b[vector]! | 0}`)
    if (!all) return found
  }
  const faulted = a[vector] !== NONE
  for (let n = 0; n < (long ? 16 : 8); n++) {
    if (a[at + 2 * n] !== b[at + 2 * n] || (long && a[at + 2 * n + 1] !== b[at + 2 * n + 1])) found.push(NAMES[n]!)
  }
  const rip = (state + STATE.rip) >>> 2
  if (a[rip] !== b[rip] || a[rip + 1] !== b[rip + 1]) found.push('rip')
  const mask = (STATUS_FLAGS & ~(faulted ? 0 : undefinedFlags(i, cl))) | DF
  const rflags = (state + STATE.rflags) >>> 2
  if ((a[rflags]! ^ b[rflags]!) & mask) found.push(`flags ${((a[rflags]! ^ b[rflags]!) & mask).toString(16)}`)
  if (faulted) {
    // The upper half of the address space is the kernel's: whether a page is present there is not ours to know.
    let known = a[vector] === PF && a[vector + 3]! >>> 31 ? ~PRESENT : ~0
    if (readsFirst(row)) known &= ~WRITE
    if ((a[vector + 1]! ^ b[vector + 1]!) & known) found.push('error code')
    if (a[vector] === PF && (a[vector + 2] !== b[vector + 2] || a[vector + 3] !== b[vector + 3])) found.push('cr2')
  }
  if (flags & USES.memory) {
    for (let n = STATE.memory >>> 2; n < STATE.fx >>> 2; n++) {
      if (a[at + n] !== b[at + n]) {
        found.push(`memory+${n * 4 - STATE.memory}`)
        if (!all) break
      }
    }
  }
  if (flags & USES.vectors) vectors(found, encoded, native, ours, state + STATE.fx, all)
  return found
}

/** A branch to where nothing is mapped has been taken: the fault is the next instruction's. */
function arriveNowhere({ row }: Encoded, { u32 }: Batch, state: number): void {
  const vector = (state + STATE.vector) >>> 2
  if (row.attributes.flow === undefined || u32[vector] !== PF || !(u32[vector + 1]! & FETCH)) return
  u32[vector] = NONE
  const rflags = (state + STATE.rflags) >>> 2
  u32[rflags] = u32[rflags]! & ~RESUME
}

/** MXCSR, XMM and x87. Of approximations only what is exact counts. */
function vectors(found: string[], { row }: Encoded, native: Batch, ours: Batch, fx: number, all: boolean): void {
  const a = native.u32, b = ours.u32, a16 = native.u16, b16 = ours.u16
  const approximate = APPROXIMATE.test(row.semantics)
  const word = fx >>> 2, half = fx >>> 1
  if (a[word + FX.mxcsr / 4] !== b[word + FX.mxcsr / 4]) found.push('mxcsr')
  if (!(approximate && row.attributes.unit === 'sse')) {
    for (let n = FX.xmm / 4; n < FX.xmm / 4 + 64; n++) {
      if (a[word + n] !== b[word + n]) {
        found.push(`xmm${(n * 4 - FX.xmm) >> 4}`)
        n |= 3
        if (!all) break
      }
    }
  }
  if (a16[half] !== b16[half]) found.push('fcw')
  const statusMask = approximate ? ~0x220 : ~0
  if ((a16[half + 1]! ^ b16[half + 1]!) & statusMask) found.push('fsw')
  if ((a16[half + 2]! ^ b16[half + 2]!) & 0xff) found.push('ftw')
  // AMD keeps the pointers only where an exception is pending.
  if (row.attributes.unit === 'x87' && a16[half + 1]! & ES && a[word + FX.ip / 4]) {
    if (a16[half + FX.opcode / 2] !== b16[half + FX.opcode / 2]) found.push('fop')
    if (a[word + FX.ip / 4] !== b[word + FX.ip / 4]) found.push('fip')
    if (a[word + FX.dp / 4] !== b[word + FX.dp / 4]) found.push('fdp')
  }
  if (approximate) return
  for (let n = 0; n < 8; n++) {
    const st = word + FX.st / 4 + 4 * n
    if (a[st] !== b[st] || a[st + 1] !== b[st + 1] || (a[st + 2]! & 0xffff) !== (b[st + 2]! & 0xffff)) found.push(`st${n}`)
  }
}

const hex = (bytes: Uint8Array): string => [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join(' ')

/** A difference in full: the instruction, and every part that differs before, natively and ours. */
export function describe(encoded: Encoded, native: Batch, ours: Batch, input: number, state: number, what: readonly string[]): string {
  const lines = [`${hex(encoded.code)}  ${text(encoded)}  [${encoded.row.encoding} ${encoded.row.operandText}]`, `  differs: ${what.join(', ')}`]
  const u64 = (b: Batch, at: number) => new DataView(b.bytes.buffer).getBigUint64(at, true).toString(16).padStart(16, '0')
  const show = (name: string, offset: number, bytes = 8) => {
    const of = (b: Batch, base: number) => (bytes === 16 ? `${u64(b, base + offset + 8)}_${u64(b, base + offset)}` : u64(b, base + offset))
    lines.push(`  ${name.padEnd(7)} before ${of(native, input)}  native ${of(native, state)}  ours ${of(ours, state)}`)
  }
  const i = encoded.instruction
  const named = new Set<number>([0, 1, 2, i.reg, i.rm, i.base, i.index, i.vvvv].filter((n) => n >= 0 && n < 16))
  NAMES.forEach((name, n) => {
    if (named.has(n) || what.includes(name)) show(name, 8 * n)
  })
  show('rflags', STATE.rflags)
  show('vec/err', STATE.vector)
  show('cr2', STATE.cr2)
  show('rip', STATE.rip)
  for (const one of what) if (one.startsWith('memory+')) show(one, STATE.memory + (Number(one.slice(7)) & ~7))
  const { unit } = encoded.row.attributes
  if (unit) {
    show('fcw/fsw', STATE.fx)
    show('mxcsr', STATE.fx + FX.mxcsr)
    show('fip', STATE.fx + FX.ip)
    show('fdp', STATE.fx + FX.dp)
    if (unit === 'sse') for (const n of new Set([0, i.reg, i.rm].filter((n_) => n_ < 16))) show(`xmm${n}`, STATE.fx + FX.xmm + 16 * n, 16)
    if (unit !== 'sse') for (let n = 0; n < 8; n++) if (n === 0 || what.includes(`st${n}`) || n === (i.rm & 7)) show(`st${n}`, STATE.fx + FX.st + 16 * n, 16)
  }
  if (i.isMemory) show('mem mid', STATE.memory + 64, 16)
  return lines.join('\n')
}

const text = ({ instruction, address }: Encoded): string => disassemble(instruction, BigInt(address))
