/** Output of a command: results to `out`, messages to `err`. */

import { ExitCode, NonrootError } from '@nonroot/contracts'
import { systemError } from '@nonroot/host-node'

export interface CommandIo {
  out(text: string): void
  err(text: string): void
  /** Colours are wanted on `out`. */
  readonly color: boolean
}

export const processIo: CommandIo = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  color: process.stdout.isTTY === true && !process.env['NO_COLOR'],
}

export const json = (io: CommandIo, value: unknown): void => io.out(`${JSON.stringify(value, null, 2)}\n`)

/** Tell an error and give its exit status. Never a stack trace, unless NONROOT_DEBUG asks for it. */
export function report(error: unknown, io: CommandIo, asJson: boolean): number {
  const host = systemError(error)
  if (host) return report(host, io, asJson)
  if (!(error instanceof NonrootError)) {
    const { message, stack } = error instanceof Error ? error : { message: String(error), stack: undefined }
    if (asJson) json(io, { error: { code: 'internal', message } })
    else io.err(`error: ${message}\n  this is a bug in nonroot: please report it (NONROOT_DEBUG=1 shows where)\n`)
    if (process.env['NONROOT_DEBUG'] && stack) io.err(`${stack}\n`)
    return ExitCode.internal
  }
  if (asJson) json(io, { error: error.toJSON() })
  else for (const one of error.errors.length ? error.errors : [error]) io.err(`error: ${one.describe()}\n`)
  if (process.env['NONROOT_DEBUG']) io.err(`${error.stack}\n`)
  return error.exitCode
}
