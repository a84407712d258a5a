/** Standard output and standard error of the process: handling of write errors. */

import { constants } from 'node:os'
import { getSystemErrorMessage } from 'node:util'
import { ExitCode } from '@nonroot/contracts'

export interface Streams {
  /** Waits until all is written and reports a failure. Returns the exit status for a command that ended with `status`. */
  settle(status: number): Promise<number>
}

/** Listens to both streams' errors, once a process: an error without a listener ends it. */
export function watchStreams(out = process.stdout, err = process.stderr): Streams {
  let failure: NodeJS.ErrnoException | undefined
  out.on('error', (error: NodeJS.ErrnoException) => (failure ??= error))
  // No stream is left to report it on.
  err.on('error', () => {})
  return {
    async settle(status) {
      await written(out)
      if (!failure) return status
      // The reader has closed it: end silently, as SIGPIPE ends a program.
      if (failure.code === 'EPIPE') return status === ExitCode.ok ? 128 + constants.signals.SIGPIPE : status
      err.write(`error: cannot write to standard output: ${reasonOf(failure)}\n`)
      await written(err)
      return ExitCode.host
    },
  }
}

const reasonOf = ({ errno, message }: NodeJS.ErrnoException): string =>
  errno === undefined ? message : getSystemErrorMessage(errno)

const written = (stream: NodeJS.WriteStream): Promise<void> =>
  new Promise((resolve) => stream.write('', () => resolve()))
