/** A log that passes lines to a listener. */

import type { Log } from '@nonroot/contracts'

export type LogLevel = 'debug' | 'info' | 'warn' | 'error'
const ORDER: readonly LogLevel[] = ['debug', 'info', 'warn', 'error']

export function createLog(listener: (level: LogLevel, message: string) => void, least: LogLevel = 'info'): Log {
  const at = (level: LogLevel) => {
    const on = ORDER.indexOf(level) >= ORDER.indexOf(least)
    return (message: string | (() => string)): void => {
      if (on) listener(level, typeof message === 'string' ? message : message())
    }
  }
  return { debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}

/** The same log with a name in front of each line. */
export function namedLog(log: Log, name: string): Log {
  return {
    debug: (message) => log.debug(() => `${name}: ${typeof message === 'string' ? message : message()}`),
    info: (message) => log.info(`${name}: ${message}`),
    warn: (message) => log.warn(`${name}: ${message}`),
    error: (message) => log.error(`${name}: ${message}`),
  }
}
