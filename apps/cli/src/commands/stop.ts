/** `nonroot stop NAME`: asks a guest to shut down, or ends its VM. */

import { ExitCode, NonrootError } from '@nonroot/contracts'
import { withVm } from '../control/find-vm.ts'
import type { CommandIo } from '../io.ts'
import { parseDuration } from '../run/duration.ts'

export interface StopOptions {
  readonly force?: boolean
  readonly timeout?: string
}

/** How long a guest usually may take. */
const USUAL = '60s'

export async function stop(name: string, options: StopOptions, io: CommandIo): Promise<number> {
  const text = options.timeout ?? USUAL
  const patienceMs = parseDuration(text, '--timeout')
  return withVm(name, async (client) => {
    const ended = new Promise<void>((resolve) => {
      client.onEvent(({ event }) => event === 'SHUTDOWN' && resolve())
      void client.closed.then(resolve)
    })
    const status = (await client.execute('query-status')) as { status: string }
    if (status.status === 'shutdown') return ExitCode.ok
    try {
      await client.execute(options.force ? 'quit' : 'system_powerdown')
    } catch (error) {
      throw new NonrootError({
        code: 'usage',
        message: `${name}: ${(error as Error).message}`,
        thing: name,
        remedy: 'nonroot stop --force ends it without asking',
        cause: error,
      })
    }
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<true>((resolve) => (timer = setTimeout(() => resolve(true), patienceMs)))
    const isLate = await Promise.race([ended, late])
    clearTimeout(timer)
    if (!isLate) return ExitCode.ok
    io.err(`${name} still runs after ${text}; nonroot stop --force ends it\n`)
    return ExitCode.timeout
  })
}
