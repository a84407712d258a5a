/** `nonroot host`: PCI functions of running hosts, their groups, and the VMs that own them. */

import type { HostFunctionInfo } from '@nonroot/contracts'
import { ExitCode } from '@nonroot/contracts'
import { hosts } from '../control/find-vm.ts'
import { functionsCommand } from '../control/host-commands.ts'
import { QmpClient } from '../control/qmp-client.ts'
import { json } from '../io.ts'
import type { CommandIo } from '../io.ts'
import { tableText } from '../table.ts'

export async function host(options: { json?: boolean }, io: CommandIo): Promise<number> {
  const found = await Promise.all(
    (await hosts()).map(async ({ sockets, summary: { pid, file } }) => {
      const client = await QmpClient.connect(sockets.host)
      try {
        return { pid, file, functions: (await client.execute(functionsCommand)) as HostFunctionInfo[] }
      } finally {
        client.close()
      }
    }),
  )
  if (options.json) json(io, found)
  else {
    const rows = found.flatMap(({ pid, functions }) => functions.map((one) => [String(pid), ...rowOf(one)]))
    io.out(tableText(['HOST', 'FUNCTION', 'GROUP', 'KIND', 'NAME', 'ID', 'OWNER'], rows))
  }
  return ExitCode.ok
}

const hex = (value: number): string => value.toString(16).padStart(4, '0')

export const rowOf = ({ at, group, kind, name, vendorId, deviceId, owner }: HostFunctionInfo): string[] => [
  at,
  String(group),
  kind,
  name,
  `${hex(vendorId)}:${hex(deviceId)}`,
  owner ?? '',
]
