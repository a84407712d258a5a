/** `nonroot memory`: who has what of the hosts' memory, and what each technique has brought back. */

import { rename, writeFile } from 'node:fs/promises'
import { FRAME_SIZE, ExitCode, NonrootError } from '@nonroot/contracts'
import { hosts } from '../control/find-vm.ts'
import type { HostSummary } from '../control/host-commands.ts'
import { MemoryHistory } from '../control/memory-plot.ts'
import { json } from '../io.ts'
import type { CommandIo } from '../io.ts'
import type { HostMemoryUse } from '../run/protocol.ts'
import { tableText } from '../table.ts'

export interface MemoryOptions {
  readonly json?: boolean
  readonly watch?: boolean
  readonly plot?: string
}

const WATCH_MS = 1000

export async function memory(options: MemoryOptions, io: CommandIo): Promise<number> {
  if (options.plot !== undefined) return plot(options.plot, io)
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

/** Until no host runs any more. The file is whole at any time: it may end sooner. */
async function plot(file: string, io: CommandIo): Promise<number> {
  const history = new MemoryHistory()
  const started = performance.now()
  let pid: number | undefined
  for (;;) {
    const summaries = (await hosts()).map(({ summary }) => summary)
    // One picture, one host: the first that there is.
    const summary = summaries.find((one) => one.pid === (pid ?? one.pid))
    if (!summary) {
      if (pid !== undefined) return ExitCode.ok
      io.err('no host is running: there is nothing to plot\n')
      return ExitCode.configuration
    }
    pid = summary.pid
    const { memory: host, vms } = summary
    if (host) history.add({ seconds: (performance.now() - started) / 1000, host, vms })
    await writeWhole(file, history.svg(`Memory of the guests of ${summary.file}`))
    await new Promise((resolve) => setTimeout(resolve, WATCH_MS))
  }
}

async function writeWhole(file: string, text: string): Promise<void> {
  try {
    await writeFile(`${file}.part`, text)
    await rename(`${file}.part`, file)
  } catch (error) {
    throw new NonrootError({
      code: 'host.file',
      message: `--plot: ${file} cannot be written: ${(error as Error).message}`,
      thing: '--plot',
      value: file,
      remedy: 'name a file in a folder that is there and that you may write to',
      cause: error,
    })
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
