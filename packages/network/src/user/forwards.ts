/** Forwarded ports, parsed from a configuration. */

import { NonrootError } from '@nonroot/contracts'

export interface Forward {
  readonly protocol: 'tcp' | 'udp'
  /** Of the host. */
  readonly host: string
  readonly port: number
  readonly guestPort: number
}

/** `127.0.0.1:2222:22`, `2222:22` (the host's loopback), `udp:127.0.0.1:5353:53`, `[::1]:8080:80`. */
export function parseForward(text: string): Forward {
  const found =
    /^(?:(?<protocol>tcp|udp):)?(?:(?<host>\[[\da-f:.]+\]|[^:[\]]+):)?(?<port>\d{1,5}):(?<guest>\d{1,5})$/i.exec(
      text,
    )?.groups
  const port = Number(found?.['port'])
  const guestPort = Number(found?.['guest'])
  if (!found || port > 65535 || guestPort > 65535 || guestPort === 0) {
    throw new NonrootError({
      code: 'host.backend',
      message: `"${text}" forwards no port`,
      thing: 'forward',
      value: text,
      remedy: 'HOST:PORT:GUESTPORT, as in 127.0.0.1:2222:22 or udp:127.0.0.1:5353:53',
    })
  }
  const host = found['host']?.replace(/^\[|\]$/g, '') ?? '127.0.0.1'
  return { protocol: found['protocol']?.toLowerCase() === 'udp' ? 'udp' : 'tcp', host, port, guestPort }
}
