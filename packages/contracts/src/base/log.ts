/** Where parts say what a person should read. Never the guest's console. */

import { token } from './token.ts'

/** One line per call, no trailing newline. `debug` is off unless asked for: pass a function where text is costly. */
export interface Log {
  debug(message: string | (() => string)): void
  info(message: string): void
  warn(message: string): void
  error(message: string): void
}
export const Log = token<Log>('Log')
