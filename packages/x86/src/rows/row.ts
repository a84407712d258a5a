/**
 * One row of the manual: encoding, operands and the facts about an instruction that are data. Behaviour is in semantics/.
 * Notation is that of the opcode maps (SDM Vol. 2D, "Opcode Map", "Key to Abbreviations").
 */
import { parseEncoding, type Encoding } from './encoding.ts'
import { effectsOf, type Effects } from './effects.ts'
import type { Feature } from './features.ts'
import { parseOperands, type OperandSpec } from './operand.ts'

export type { Encoding } from './encoding.ts'
export type { Effects } from './effects.ts'
export type { Feature } from './features.ts'
export type { OperandKind, OperandSize, OperandSpec } from './operand.ts'

/** Flags as letters: O D I T S Z A P C, plus L (IOPL), N (NT), R (RF), V (VM), X (AC), F (VIF), G (VIP), E (ID). */
export interface RowFlags {
  /** Flags that the result depends on. */
  readonly reads: string
  /** Flags that may change, including the undefined ones. */
  readonly writes: string
  /** The part of `writes` whose value the manual leaves undefined. */
  readonly undefined: string
  /**
   * Where the effect depends on the (masked) count. A count of 0 leaves every flag alone; a count other than 1 leaves OF
   * undefined as well. `shift`: CF is also undefined once the count reaches the operand size (SHL and SHR of 8 and 16
   * bits). `doubleShift`: everything is undefined once the count exceeds the operand size. `rotate`: OF only.
   */
  readonly count?: 'shift' | 'arithmeticShift' | 'rotate' | 'doubleShift' | undefined
}

/** How the instruction ends a block, for those that do. A row without `flow` falls through. */
export type Flow =
  | 'conditional' // relative, falls through when not taken
  | 'jump' // relative
  | 'call' // relative
  | 'indirectJump'
  | 'indirectCall'
  | 'return' // near
  | 'far' // any transfer through CS, gates, SYSCALL and the like
  | 'trap' // always an exception or a software interrupt
  | 'halt' // waits: HLT, MWAIT
  | 'serialise' // falls through, but what follows may decode or translate differently (MOV CR0, WRMSR, POPF, ...)

/** The VM exit that the instruction itself can cause. Names of reasons and controls are the SDM's, in camel case. */
export interface RowExit {
  readonly reason: string
  /** `always`, or the VM-execution control that decides. */
  readonly when: string
  /** Bits of the exit qualification that the encoding decides. */
  readonly qualification?: number
}

/** REP prefixes: which forms repeat. `string` ignores ZF, `stringCompare` stops on ZF (REPE, REPNE). */
export type Repeat = 'string' | 'stringCompare'

/** Register file beyond the integer one, and so the #NM and #UD checks (CR0.EM, CR0.TS, CR4.OSFXSR) to be made first. */
export type Unit = 'x87' | 'wait' | 'mmx' | 'sse' | 'fxsr' | 'xsave'

export interface RowAttributes {
  /** Key into the semantics table. Default: the mnemonic in lower case. */
  readonly semantics?: string
  /** LOCK is legal when the destination is memory. */
  readonly lock?: boolean
  /** Highest CPL that may execute it without condition; only 0 occurs. IOPL rules are in the semantics. */
  readonly cpl?: 0
  /** What a CPL above `cpl` causes, where it is not #GP(0). */
  readonly cplFault?: 'ud'
  readonly exit?: RowExit
  /** In VMX non-root operation #UD unless this control is 1. */
  readonly enabledBy?: string
  /**
   * Its result depends on privileged state, or on the privilege level, although it does not trap at CPL 3: what keeps the architecture from being
   * virtualisable by traps alone. (Robin and Irvine, "Analysis of the Intel Pentium's Ability to Support a Secure Virtual Machine Monitor")
   */
  readonly sensitive?: true
  readonly only64?: boolean
  readonly not64?: boolean
  /** #UD in real-address and virtual-8086 mode. */
  readonly notReal?: boolean
  /** 64-bit operands by default in 64-bit mode; 66 selects 16 bits (SDM: "d64"). */
  readonly default64?: boolean
  /** Always 64-bit operands in 64-bit mode, 66 is ignored (SDM: "f64"; near branches as on Intel's chips). */
  readonly force64?: boolean
  readonly rep?: Repeat
  /** CPUID feature that must be advertised, else the row does not exist (`DecodeTables`). Absent: base architecture. */
  readonly cpuid?: Feature
  readonly flags?: RowFlags
  readonly flow?: Flow
  readonly unit?: Unit
  /** x87 instructions that do not look for pending exceptions first (the FN… forms). */
  readonly nonWaiting?: boolean
  /** A 16-byte memory operand must be aligned (#GP). See `alignedFamily`. */
  readonly aligned?: boolean
  /** The interrupt shadow: events are held off until after the next instruction. */
  readonly shadow?: boolean
  /** Mnemonics for operand (or address) sizes 16, 32 and 64, where the manual names them apart: `CBW CWDE CDQE`. */
  readonly names?: string
  readonly namesBy?: 'operandSize' | 'addressSize'
  /** Reserved-NOP space: any other row of the same opcode takes precedence. */
  readonly reserved?: boolean
  /** Real but not in the manual's instruction pages, or an alias of another encoding. */
  readonly undocumented?: boolean
}

/** A row as written in the family files. */
export interface RowSource {
  readonly mnemonic: string
  readonly operands: string
  readonly encoding: string
  readonly attributes: RowAttributes
}

/** One row of the manual, parsed. Rows are shared and never change: compare them by identity or by `id`. */
export interface Row {
  /** Index in `rows`; stable within one build only. */
  readonly id: number
  readonly mnemonic: string
  readonly semantics: string
  readonly operands: readonly OperandSpec[]
  readonly operandText: string
  /** As in the manual: `F3 0F B8 /r`. */
  readonly encoding: string
  readonly form: Encoding
  readonly attributes: RowAttributes
  readonly flags: RowFlags
  readonly effects: Effects
}

export const NO_FLAGS: RowFlags = { reads: '', writes: '', undefined: '' }

/** `row('ADC', 'Ev,Gv', '11 /r', { lock: true })` */
export function row(mnemonic: string, operands: string, encoding: string, attributes: RowAttributes = {}): RowSource {
  return { mnemonic, operands, encoding, attributes }
}

/** Rows that share attributes; a row's own win. */
export function family(shared: RowAttributes, sources: readonly RowSource[]): RowSource[] {
  return sources.map((source) => ({ ...source, attributes: { ...shared, ...source.attributes } }))
}

/** SSE families: 16-byte memory operands must be aligned unless a row says otherwise. (SDM Vol. 2A, "Exception Conditions".) */
export function alignedFamily(shared: RowAttributes, sources: readonly RowSource[]): RowSource[] {
  const shareOf = ({ operands }: RowSource): RowAttributes => (/\b[WM]x\b/.test(operands) ? { aligned: true } : {})
  return sources.map((source) => ({
    ...source,
    attributes: { ...shared, ...shareOf(source), ...source.attributes },
  }))
}

/** Every attribute and every part of the flags is there: objects of one shape are read several times as fast, and rows are read for every decoded instruction. */
const NO_ATTRIBUTES: Readonly<Record<keyof RowAttributes, undefined>> = {
  semantics: undefined, lock: undefined, cpl: undefined, cplFault: undefined, exit: undefined, enabledBy: undefined, only64: undefined, not64: undefined,
  notReal: undefined, default64: undefined, force64: undefined, rep: undefined, cpuid: undefined, flags: undefined, flow: undefined, unit: undefined,
  nonWaiting: undefined, aligned: undefined, shadow: undefined, names: undefined, namesBy: undefined, reserved: undefined, undocumented: undefined,
  sensitive: undefined,
}

export function parseRow(source: RowSource, id: number): Row {
  const { mnemonic, operands, encoding, attributes } = source
  const { reads, writes, undefined: left, count } = attributes.flags ?? NO_FLAGS
  const specs = parseOperands(operands)
  const semantics = attributes.semantics ?? mnemonic.toLowerCase()
  return {
    id,
    mnemonic,
    semantics,
    operands: specs,
    operandText: operands,
    encoding,
    form: parseEncoding(encoding, specs),
    attributes: Object.assign({ ...NO_ATTRIBUTES }, attributes),
    flags: { reads, writes, undefined: left, count },
    effects: effectsOf(semantics),
  }
}
