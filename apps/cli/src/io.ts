/** Output of a command: results to `out`, messages to `err`. */

import { ExitCode, NonrootError } from '@nonroot/contracts'
import { systemError } from '@nonroot/host-node'

export interface CommandIo {
  out(text: string): void
  err(text: string): void
  /** Colours are wanted on `out`. */
  readonly color: boolean
  /** Messages are for programs: each is a line of JSON. */
  readonly jsonLog?: boolean
}

/** How much a message matters: of `Log`, and `notice` for words without a level, such as how the guest ended. */
export type Level = 'debug' | 'info' | 'warn' | 'error' | 'notice'

/** A message on standard error, of a VM if one of several. */
export function tell(io: CommandIo, level: Level, message: string, more: { readonly vm?: string } & Record<string, unknown> = {}): void {
  if (io.jsonLog) return io.err(`${JSON.stringify({ time: new Date().toISOString(), level, ...more, message })}\n`)
  io.err(`${more.vm === undefined ? '' : `${more.vm}: `}${level === 'notice' ? '' : `${level}: `}${message}\n`)
}

export const processIo: CommandIo = {
  out: (text) => void process.stdout.write(text),
  err: (text) => void process.stderr.write(text),
  color: process.stdout.isTTY === true && !process.env['NO_COLOR'],
}

export const json = (io: CommandIo, value: unknown): void => io.out(`${JSON.stringify(value, null, 2)}\n`)

/** Tell an error and give its exit status. Never a stack trace, unless NONROOT_DEBUG asks for it. `vm`: whose it is, of several. */
export function report(error: unknown, io: CommandIo, asJson: boolean, vm?: string): number {
  const host = systemError(error)
  if (host) return report(host, io, asJson, vm)
  const of = vm === undefined ? {} : { vm }
  if (!(error instanceof NonrootError)) {
    const { message, stack } = error instanceof Error ? error : { message: String(error), stack: undefined }
    if (asJson) json(io, { error: { code: 'internal', message } })
    else if (io.jsonLog) tell(io, 'error', message, { ...of, code: 'internal' })
    else tell(io, 'error', `${message}\n  this is a bug in nonroot: please report it (NONROOT_DEBUG=1 shows where)`, of)
    if (process.env['NONROOT_DEBUG'] && stack) io.err(`${stack}\n`)
    return ExitCode.internal
  }
  if (asJson) json(io, { error: error.toJSON() })
  else
    for (const one of error.errors.length ? error.errors : [error])
      if (io.jsonLog) tell(io, 'error', one.message, { ...of, ...one.toJSON() })
      else tell(io, 'error', one.describe(), of)
  if (process.env['NONROOT_DEBUG']) io.err(`${error.stack}\n`)
  return error.exitCode
}
