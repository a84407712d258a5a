/** `nonroot metrics NAME`: prints the metrics of a running VM, in the text format of Prometheus. */

import { ExitCode } from '@nonroot/contracts'
import { withVm } from '../control/find-vm.ts'
import { metricsCommand } from '../control/vm-commands.ts'
import type { CommandIo } from '../io.ts'

export const metrics = (name: string, io: CommandIo): Promise<number> =>
  withVm(name, async (client) => {
    io.out((await client.execute(metricsCommand)) as string)
    return ExitCode.ok
  })
