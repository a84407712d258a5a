/** Messages for the user. Never the guest's console. */

import { token } from './token.ts'

/** One line per call, no trailing newline. `debug` is off by default: pass a function if the text is costly to make. */
export interface Log {
  debug(message: string | (() => string)): void
  info(message: string): void
  warn(message: string): void
  error(message: string): void
}
export const Log = token<Log>('Log')
