/** Instructions that kernels execute so often that the monitor carries them out itself. Which they are, and what it needs to know of each. */

import { BASE_RIP } from '@nonroot/x86'
import type { Instruction } from '@nonroot/x86'
import { POINT } from './points.ts'

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

/** The kind of point of an instruction that the monitor carries out. */
export function pointOf({ row, operandSize, lock }: Instruction): number {
  const kind = BY_MNEMONIC[row.mnemonic]
  const isAnySize = kind === undefined || !OF_64_BITS.has(kind)
  return kind !== undefined && (isAnySize || operandSize === 64) && !lock ? kind : POINT.callOut
}

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
