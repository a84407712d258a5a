/** `nonroot ps`: lists this user's running VMs by host. */

import { FRAME_SIZE, ExitCode, formatSize } from '@nonroot/contracts'
import { hosts } from '../control/find-vm.ts'
import type { VmSummary } from '../control/host-commands.ts'
import { json } from '../io.ts'
import type { CommandIo } from '../io.ts'
import { tableText } from '../table.ts'

export async function ps(options: { json?: boolean }, io: CommandIo): Promise<number> {
  const summaries = (await hosts()).map(({ summary }) => summary)
  if (options.json) {
    json(io, summaries)
    return ExitCode.ok
  }
  const rows = summaries.flatMap(({ pid, file, vms }) =>
    vms.map((vm) => [String(pid), vm.name, stateText(vm), ageText(Date.now() - vm.startedAt), memoryText(vm), file]),
  )
  io.out(tableText(['HOST', 'NAME', 'STATE', 'FOR', 'MEMORY', 'FILE'], rows))
  return ExitCode.ok
}

const stateText = ({ state, status }: VmSummary): string => (status === undefined ? state : `${state} (${status})`)

const memoryText = ({ memory }: VmSummary): string =>
  memory ? `${formatSize(memory.residentFrames * FRAME_SIZE)} of ${formatSize(memory.maximumFrames * FRAME_SIZE)}` : ''

function ageText(ms: number): string {
  const seconds = Math.max(0, Math.floor(ms / 1000))
  if (seconds < 120) return `${seconds} s`
  return seconds < 7200 ? `${Math.floor(seconds / 60)} min` : `${Math.floor(seconds / 3600)} h`
}
