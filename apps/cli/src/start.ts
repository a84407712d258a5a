/** The entry point of the command: what the process does first, and in which order. */

import { markStart } from './run/start-times.ts'
import { watchStreams } from './streams.ts'
import { dropThread, startThread } from './thread.ts'

/** Runs the command line of this process and gives its exit status. */
export async function start(argv: readonly string[]): Promise<number> {
  markStart()
  const streams = watchStreams()
  if (argv[0] === 'run') startThread()
  try {
    const { main } = await import('./main.ts')
    return await streams.settle(await main(argv))
  } finally {
    await dropThread()
  }
}
