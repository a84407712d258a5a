/** The few encodings that the translator writes itself. (SDM Vol. 2A, "Instruction Format") */

import type { Instruction } from '@nonroot/x86'

/** Raises #GP at any level but 0, with RIP at it. In the cache it calls the monitor. */
export const TRAP = 0xf4
/** Bytes of a trap that stands for an instruction, and what follows HLT in it: for monitor/quick-traps.ts, as nothing else fetches or reads it. */
export const TRAP_BYTES = 8
/** In the operand of an indirect branch, beside the number of its register. */
export const CALL = 16
export const TRAP_FIELD = { kind: 1, operand: 2, value: 4 } as const
/** Bytes of a stub: a trap, later a jump in its place. */
export const STUB = 5

const isLegacyPrefix = (byte: number): boolean =>
  byte === 0x66 || byte === 0x67 || byte === 0xf0 || byte === 0xf2 || byte === 0xf3 || (byte & 0xe7) === 0x26 || byte === 0x64 || byte === 0x65
const isRex = (byte: number): boolean => (byte & 0xf0) === 0x40
const REX_X = 2
const VEX_NOT_X = 0x40
const MOD_RM = 0xc7
/** rm 4: an SIB byte follows. SIB 25H: no base, no index, a displacement of 32 bits. (SDM Vol. 2A, "32-Bit Addressing Forms with the SIB Byte") */
const RM_SIB = 4
const SIB_ABSOLUTE = 0x25

/** Where the ModRM byte is, or -1 if a prefix extends the index, which the absolute form would use. A REX prefix counts where the opcode follows. */
function modrmAt(bytes: Uint8Array, at: number): number {
  let rex = 0
  while (isLegacyPrefix(bytes[at]!) || isRex(bytes[at]!)) {
    rex = isRex(bytes[at]!) ? bytes[at]! : 0
    at++
  }
  if (rex & REX_X) return -1
  if (bytes[at] === 0xc5) return at + 3
  if (bytes[at] === 0xc4) return bytes[at + 1]! & VEX_NOT_X ? at + 4 : -1
  if (bytes[at] !== 0x0f) return at + 1
  return bytes[at + 1] === 0x38 || bytes[at + 1] === 0x3a ? at + 3 : at + 2
}

/** Copies an instruction with a RIP-relative operand as one with an absolute address. Gives its length, or -1 if it cannot be encoded. */
export function copyAbsolute(from: Uint8Array, at: number, { length }: Instruction, address: number, into: Uint8Array, to: number): number {
  const modrm = modrmAt(from, at)
  if (modrm < 0) return -1
  const head = modrm - at
  for (let n = 0; n < head; n++) into[to + n] = from[at + n]!
  into[to + head] = (from[modrm]! & ~MOD_RM) | RM_SIB
  into[to + head + 1] = SIB_ABSOLUTE
  put32(into, to + head + 2, address)
  const tail = length - head - 5
  for (let n = 0; n < tail; n++) into[to + head + 6 + n] = from[modrm + 5 + n]!
  return length + 1
}

export function put32(into: Uint8Array, at: number, value: number): void {
  into[at] = value
  into[at + 1] = value >>> 8
  into[at + 2] = value >>> 16
  into[at + 3] = value >>> 24
}
/** JMP rel32 from one offset of the cache to another. */
export function putJump(into: Uint8Array, base: number, at: number, target: number): void {
  into[base + at] = 0xe9
  put32(into, base + at + 1, target - (at + STUB))
}
/** PUSH of a sign-extended imm32. */
export function putPush(into: Uint8Array, at: number, value: number): number {
  into[at] = 0x68
  put32(into, at + 1, value)
  return 5
}
