/** `nonroot memory`: who has what of the hosts' memory, and what each technique has brought back. */

import { FRAME_SIZE, ExitCode } from '@nonroot/contracts'
import { hosts } from '../control/find-vm.ts'
import type { HostSummary } from '../control/host-commands.ts'
import { json } from '../io.ts'
import type { CommandIo } from '../io.ts'
import type { HostMemoryUse } from '../run/protocol.ts'
import { tableText } from '../table.ts'

export interface MemoryOptions {
  readonly json?: boolean
  readonly watch?: boolean
}

const WATCH_MS = 1000

export async function memory(options: MemoryOptions, io: CommandIo): Promise<number> {
  for (;;) {
    const summaries = (await hosts()).map(({ summary }) => summary)
    if (options.json) io.out(options.watch ? `${JSON.stringify(summaries)}\n` : '')
    if (options.json && !options.watch) json(io, summaries)
    if (!options.json)
      io.out((options.watch && io.color ? '\x1b[H\x1b[2J' : '') + summaries.map(memoryTable).join('\n'))
    if (!options.watch) return ExitCode.ok
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS))
  }
}

const mib = (frames: number): string => ((frames * FRAME_SIZE) / 2 ** 20).toFixed(1)

function usedText({ guestFrames, freeGuestFrames, totalFrames, freeFrames }: HostMemoryUse): string {
  const [guests, all] = [guestFrames - freeGuestFrames, totalFrames - freeFrames]
  return `guests use ${mib(guests)} of ${mib(guestFrames)} MiB, processors ${mib(all - guests)} MiB`
}

/** In MiB. Techniques have a column each. */
export function memoryTable({ pid, file, memory: host, vms }: HostSummary): string {
  const techniques = [...new Set(vms.flatMap((vm) => vm.memory?.techniques.map(({ technique }) => technique) ?? []))]
  const head = ['NAME', 'MAXIMUM', 'TARGET', 'RESIDENT', 'SHARED', 'PARKED', 'BALLOON', 'PINNED']
  const rows = vms.flatMap(({ name, memory: use }) =>
    use
      ? [
          [
            name,
            ...[
              use.maximumFrames,
              use.targetFrames,
              use.residentFrames,
              use.sharedFrames,
              use.parkedFrames,
              use.balloonedFrames,
              use.pinnedFrames,
              ...techniques.map((one) => use.techniques.find(({ technique }) => technique === one)?.frames ?? 0),
            ].map(mib),
          ],
        ]
      : [],
  )
  const columns = [...head, ...techniques.map((technique) => `BY ${technique.toUpperCase()}`)]
  const table = tableText(columns, rows, columns.map((_, column) => column).slice(1))
  const used = host ? usedText(host) : 'no VM runs'
  return `host ${pid} (${file}): ${used}\n${table}`
}
