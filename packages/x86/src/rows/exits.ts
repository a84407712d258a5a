/** The exits that rows can cause, numbered: a system routine is called with the number of its instruction's exit. */
import { rows } from './index.ts'
import type { Row, RowExit } from './row.ts'

export interface ExitCause {
  readonly reason: string
  /** `always`, or the control that decides. */
  readonly when: string
  /** Bits of the exit qualification that the encoding decides. */
  readonly qualification: number
}

const causes: ExitCause[] = [{ reason: '', when: '', qualification: 0 }]
const numbers = new Map<string, number>()
const nameOf = ({ reason, when, qualification }: RowExit): string => `${reason}/${when}/${qualification ?? 0}`
for (const { attributes } of rows) {
  const cause = attributes.exit
  if (!cause || numbers.has(nameOf(cause))) continue
  numbers.set(nameOf(cause), causes.length)
  causes.push({ qualification: 0, ...cause })
}

/** Exits by number; 0 is none. */
export const EXIT_CAUSES: readonly ExitCause[] = causes

/** Number of the exit that a row can cause, 0 none. */
export function exitOf(row: Row): number {
  const cause = row.attributes.exit
  return cause ? numbers.get(nameOf(cause))! : 0
}
