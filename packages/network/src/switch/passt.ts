/** `passt`: starts the program of that name for one card, and exchanges frames with it over its UNIX socket. */

import { ConnectError, NonrootError } from '@nonroot/contracts'
import type { HostNetwork, NetworkBackend, SocketStream } from '@nonroot/contracts'
import { parseForward } from '../user/forwards.ts'
import { StreamNetwork } from './stream-network.ts'

const TRIES = 100
const BETWEEN_MS = 50

/** In the foreground, and as who we are: started by root it would switch to the user `nobody`, who cannot enter our folder. */
const ARGUMENTS = ['--foreground', '--quiet', '--runas', '0'] as const

export async function openPasst(
  host: HostNetwork,
  card: Pick<NetworkBackend, 'macAddress' | 'mtu'>,
  forward: readonly string[],
): Promise<NetworkBackend> {
  const random = new Uint8Array(4)
  host.random(random)
  const path = host.meetingPath(`passt-${random.join('')}`)
  const ports = forward.flatMap((text) => {
    const { protocol, host: address, port, guestPort } = parseForward(text)
    return [protocol === 'tcp' ? '--tcp-ports' : '--udp-ports', `${address}/${port}:${guestPort}`]
  })
  const passt = await host.start('passt', [...ARGUMENTS, '--socket', path, ...ports])
  let words: string | undefined
  void passt.ended.then((last) => (words = last))
  const dial = async (): Promise<SocketStream> => {
    for (let tries = 0; ; tries++) {
      try {
        return await host.connect({ path })
      } catch (error) {
        if (words !== undefined) throw over(words)
        if (tries >= TRIES || !(error instanceof ConnectError)) throw error
      }
      await new Promise((resolve) => setTimeout(resolve, BETWEEN_MS))
    }
  }
  const network = new StreamNetwork(card)
  try {
    await network.dial(dial, 'passt')
  } catch (error) {
    passt.stop()
    throw error
  }
  return {
    macAddress: card.macAddress,
    mtu: card.mtu,
    connect: (end, surroundings) => network.connect(end, surroundings),
    async close() {
      await network.close()
      passt.stop()
    },
  }
}

const over = (words: string): NonrootError =>
  new NonrootError({
    code: 'host.backend',
    message: `passt ended: ${words === '' ? 'it does not say why' : words}`,
    thing: 'network',
    value: 'passt',
    remedy: 'run it by hand to see what it lacks, or use network: user',
  })
