/** Which rows the native oracle runs, and what of their results is not compared: each with its reason. */
import type { Instruction } from '../../src/decode/instruction.ts'
import { rows, type Row } from '../../src/rows/index.ts'
import { semantics } from '../../src/semantics/index.ts'
import type { Batch } from './batch.ts'
import type { Encoded } from './encode.ts'
import { dataOffset, operandAddress } from './states.ts'

/** Rows that a user-mode harness cannot run as they are, by semantics. */
const LEFT_OUT: readonly (readonly [RegExp, string])[] = [
  [/^(in|out|ins|outs|cli|sti|hlt)$/, 'depends on IOPL'],
  [/^(cpuid|rdtsc|rdtscp|rdpmc|rdrand|rdseed|rdpid|xgetbv)$/, 'its result is the machine’s own'],
  [/^(syscall|sysenter|sysexit|sysret|vmcall|vmmcall|vmfunc)$/, 'enters the kernel'],
  [/egment$|^(loadFarPointer|lar|lsl|verr|verw|sldt|str|smsw|sgdt|sidt)$/, 'depends on the descriptor tables'],
  [/^(vm(launch|resume|xoff|xon|ptrld|ptrst|clear|read|write)|invept|invvpid)$/, 'is of VMX: whether it is there, and in what mode, is the machine’s own'],
  [/^(rdfsbase|rdgsbase|wrfsbase|wrgsbase)$/, 'the C library lives by FS'],
  [/^(fxsave|fxrstor|xsave|xrstor|xsaveopt|xsavec)/, 'AMD leaves the pointers in the image out'],
  [/^popf$/, 'loads flags that the kernel owns'],
  [/^(monitor|mwait|umonitor|umwait|tpause|clflush|clwb|cldemote|wbnoinvd)/, 'timing or caches only'],
  [/^(ud|int|int3|into|int1|iret)$/, 'always an exception'],
]

/** Features beyond what the processor may advertise, or that Linux keeps to itself. */
const NOT_HERE = new Set(
  'movdiri movdir64b waitpkg rtm prefetchwt1 cldemote serialize ptwrite gfni cet pku smx enqcmd sgx mpx'.split(' '),
)

export function whyNot(row: Row, codeSize: 32 | 64): string | undefined {
  const { attributes } = row
  if (attributes.cpl === 0) return 'is privileged'
  if (attributes.flow === 'far' || attributes.flow === 'trap' || attributes.flow === 'halt') return 'leaves the program'
  if (codeSize === 64 ? attributes.not64 : attributes.only64) return 'is not of this mode'
  if (attributes.reserved) return 'is a reserved NOP'
  if (attributes.cpuid && NOT_HERE.has(attributes.cpuid)) return `needs ${attributes.cpuid}`
  for (const [pattern, reason] of LEFT_OUT) if (pattern.test(row.semantics)) return reason
  if (!semantics[row.semantics]) return 'has no semantics yet'
  return undefined
}

export const userRows = (codeSize: 32 | 64): Row[] => rows.filter((row) => !whyNot(row, codeSize))

const BIT: Record<string, number> = { C: 1, P: 4, A: 0x10, Z: 0x40, S: 0x80, O: 0x800, D: 0x400 }
const STATUS_FLAGS = 0x8d5

const bits = (letters: string): number => [...letters].reduce((all, letter) => all | (BIT[letter] ?? 0), 0)

/** Flags that the manual leaves undefined for this instruction and initial state. `cl`: CL. */
export function undefinedFlags(i: Instruction, cl: number): number {
  const { flags, operands } = i.row
  let undefined_ = bits(flags.undefined)
  if (!flags.count) return undefined_
  const last = operands.at(-1)!
  const mask = i.operandSize === 64 && operands[0]!.size !== 'b' ? 63 : 31
  const size = operands[0]!.size === 'b' ? 8 : i.operandSize
  const count = (last.kind === 'I' ? i.immediate : last.kind === 'one' ? 1 : cl) & mask
  if (count === 0) return 0
  if (count !== 1) undefined_ |= BIT.O!
  if (flags.count === 'shift' && count >= size) undefined_ |= BIT.C!
  if (flags.count === 'doubleShift' && count > size) undefined_ = STATUS_FLAGS
  return undefined_
}

/** Whole results that are undefined: nothing is compared. */
export function undefinedResult(i: Instruction, cl: number): boolean {
  if (i.row.flags.count !== 'doubleShift' || i.operandSize !== 16) return false
  const last = i.row.operands.at(-1)!
  return ((last.kind === 'I' ? i.immediate : cl) & 31) > 16
}

/** Approximations that each vendor computes in his own way: results are compared to so many units in the last place, or not at all. */
export const APPROXIMATE = /^(fsin|fcos|fsincos|fptan|fpatan|f2xm1|fyl2x|fyl2xp1|rcpps|rcpss|rsqrtps|rsqrtss)$/

type Applies = (encoded: Encoded, batch: Batch, state: number) => boolean
const unaligned: Applies = (encoded, batch, state) => encoded.instruction.isMemory && (operandAddress(batch, encoded, state) & 15) !== 0
const narrowSource: Applies = ({ row, instruction: i }) => row.mnemonic === 'MOVSXD' && i.operandSize === 16 && i.isMemory
const misalignedMode: Applies = (encoded, batch, state) => {
  const at = dataOffset(operandAddress(batch, encoded, state), 4)
  return at >= 0 && (batch.bytes[state + at + 2]! & 2) !== 0
}
/** Cases in which the host (AMD) and Intel's manual, which the processor follows, are known to differ. */
export const VENDORS: readonly (readonly [semantics: RegExp, applies: Applies, reason: string])[] = [
  [/^sha/, unaligned, 'AMD lets SHA operands be unaligned'],
  [/^movsx$/, narrowSource, 'AMD reads 32 bits, whatever the operand size'],
  [/^ldmxcsr$/, misalignedMode, 'AMD has a bit for unaligned SSE operands'],
]

/** Two things that can fault, of which the manual does not say which comes first. */
export const orderUnspecified = (row: Row): boolean => /^(cmps|callIndirect|pusha|popa)$/.test(row.semantics)

/** Read and written, but AMD asks for the write only when it comes to that. */
export const readsFirst = (row: Row): boolean => row.semantics === 'arpl'

export const vendorsDiffer = (encoded: Encoded, batch: Batch, state: number): boolean =>
  VENDORS.some(([pattern, applies]) => pattern.test(encoded.row.semantics) && applies(encoded, batch, state))

export { STATUS_FLAGS }
