/** A submission queue entry and its completion. (Base Specification, "Submission Queue Entry – Command Format") */

import { DO_NOT_RETRY, Status } from './facts.ts'

export interface Command {
  readonly opcode: number
  /** Fused operation (bits 1:0) and PRP or SGL (bits 7:6). */
  readonly flags: number
  readonly id: number
  readonly namespace: number
  readonly prp1: number
  readonly prp2: number
  /** Dwords 10 to 15. */
  readonly words: readonly [number, number, number, number, number, number]
}

export interface Outcome {
  /** Status field without the phase bit. */
  readonly status: number
  /** Dword 0 of the completion. */
  readonly result: number
}

export const succeeded = (result = 0): Outcome => (result === 0 ? SUCCESS : { status: Status.success, result })
const SUCCESS: Outcome = { status: Status.success, result: 0 }

/** Refused: the same command will be refused again. */
export const refused = (status: number): Outcome => ({ status: status | DO_NOT_RETRY, result: 0 })

export function parseCommand(view: DataView): Command {
  const word = (index: number): number => view.getUint32(4 * index, true)
  const address = (index: number): number => word(index) + word(index + 1) * 2 ** 32
  const first = word(0)
  return {
    opcode: first & 0xff,
    flags: (first >> 8) & 0xff,
    id: first >>> 16,
    namespace: word(1),
    prp1: address(6),
    prp2: address(8),
    words: [word(10), word(11), word(12), word(13), word(14), word(15)],
  }
}
