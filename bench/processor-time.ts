/** How long processors have worked for the processes of one group, in ms. By Linux's /proc. (proc(5)) */
import { readdirSync, readFileSync } from 'node:fs'

/** Of `/proc/PID/stat`, counted from the state: process group, and ticks in user and kernel mode, own and of children waited for. */
const FIELD = { group: 2, times: [11, 12, 13, 14] } as const
/** USER_HZ is 100 on every architecture of ours. */
const MS_PER_TICK = 10

export function processorTime(group: number): number {
  let ticks = 0
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      const text = readFileSync(`/proc/${name}/stat`, 'latin1')
      // The command's name is in brackets and may hold anything.
      const fields = text.slice(text.lastIndexOf(')') + 2).split(' ')
      if (Number(fields[FIELD.group]) === group) for (const n of FIELD.times) ticks += Number(fields[n])
    } catch {
      // It has ended.
    }
  }
  return ticks * MS_PER_TICK
}
