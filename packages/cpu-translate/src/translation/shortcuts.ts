/** Instructions that kernels execute so often that the monitor carries them out itself. Which they are, and what it needs to know of each. */

import { BASE_RIP, FLAG } from '@nonroot/x86'
import type { Instruction } from '@nonroot/x86'
import { POINT } from './points.ts'

/** PUSHF does not show these. */
export const HIDDEN = FLAG.RF | FLAG.VM
/** POPF does not change these, or the virtual CPU does it. */
export const UNUSUAL = FLAG.TF | FLAG.IOPL | FLAG.VIF | FLAG.VIP | FLAG.VM

/** The target of an indirect branch. */
export interface Target {
  readonly isCall: boolean
  /** A general register; -1: in memory. */
  readonly register: number
  readonly base: number
  readonly index: number
  readonly scale: number
  /** With a RIP-relative base resolved. */
  readonly displacement: bigint
  /** Segment register whose base counts; -1 none. */
  readonly segment: number
}

const BY_MNEMONIC: Readonly<Record<string, number>> = {
  CLI: POINT.cli,
  STI: POINT.sti,
  PUSHF: POINT.pushFlags,
  POPF: POINT.popFlags,
  STAC: POINT.stac,
  CLAC: POINT.clac,
  SWAPGS: POINT.swapGs,
  SYSRET: POINT.sysret,
  IRET: POINT.iret,
}

/** Only with operands of this size. */
const OF_64_BITS = new Set<number>([POINT.pushFlags, POINT.popFlags, POINT.sysret, POINT.iret])

const CS = 1
const SS = 2
/** Control registers that deprivileged code does not change: CR2 and CR3. */
const CONTROLS = new Set([2, 3])

/** The kind of point of an instruction that the monitor carries out. */
export function pointOf(instruction: Instruction): number {
  const { row, operandSize, lock } = instruction
  const kind = BY_MNEMONIC[row.mnemonic] ?? ofMove(instruction)
  const isAnySize = kind === undefined || !OF_64_BITS.has(kind)
  if (kind !== undefined && (isAnySize || operandSize === 64) && !lock) return kind
  return row.attributes.flow === 'far' ? POINT.far : POINT.callOut
}
function ofMove(instruction: Instruction): number | undefined {
  const { row, mod, operandSize, reg } = instruction
  if (mod !== 3) return undefined
  if (row.semantics === 'movFromSegment') return operandSize !== 16 && showsPrivilege(instruction) ? POINT.fromSegment : undefined
  return row.semantics === 'movFromControl' && CONTROLS.has(reg) ? POINT.fromControl : undefined
}
/** What a point of `ofMove` needs to know: register and source. */
export const moveOf = ({ rm, reg }: Instruction): number => rm | (reg << 4)

/** Selectors of the other segment registers are the guest's own in deprivileged code. */
export const showsPrivilege = ({ reg }: Instruction): boolean => reg === CS || reg === SS

/** `next`: the address of the next instruction. Undefined: the virtual CPU executes it. */
export function targetOf(i: Instruction, next: bigint): Target | undefined {
  if (i.operandSize !== 64 || i.lock || (i.isMemory && i.addressSize !== 64)) return undefined
  const displacement = BigInt.asIntN(32, BigInt(i.displacement))
  const isRelative = i.base === BASE_RIP
  return {
    isCall: i.row.attributes.flow === 'indirectCall',
    register: i.isMemory ? -1 : i.rm,
    base: isRelative ? -1 : i.base,
    index: i.index,
    scale: i.scale,
    displacement: isRelative ? next + displacement : displacement,
    segment: i.segmentOverride,
  }
}
