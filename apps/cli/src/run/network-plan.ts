/** The network of a run: as configured, as the command line says, or else the user-mode network. */

import { NonrootError } from '@nonroot/contracts'
import type { StackConfig } from '@nonroot/hypervisor'
import { usualKinds } from './attached.ts'

const CARDS: readonly string[] = ['virtio-net', 'xen-netback', 'e1000']
/** Networks that have a DHCP server. */
const GIVES_ADDRESSES: readonly unknown[] = [undefined, 'user', 'passt']

export interface NetworkOptions {
  /** `user`, `none`, `hub:NAME`, ... */
  readonly network?: string
  readonly forward?: readonly string[]
  readonly loopback?: readonly string[]
  /** No stack was named: a default composition may have what is usual. */
  readonly usual: boolean
}

export interface NetworkPlan {
  /** A card to plug in. */
  readonly device?: object
  /** The guest's first card gets its address by DHCP. */
  readonly dhcp: boolean
}

export function planNetwork(options: NetworkOptions, config: StackConfig): NetworkPlan {
  const { network, forward, loopback, usual } = options
  const card = config.devices.find(({ kind }) => CARDS.includes(kind))
  const asked = network !== undefined || forward !== undefined || loopback !== undefined
  if (card) {
    if (asked) throw twice(card.kind)
    return { dhcp: GIVES_ADDRESSES.includes((card as { network?: unknown }).network) }
  }
  // What comes from outside comes when it comes: a run that is to repeat has none of it unless it is asked for.
  if (network === 'none' || (!asked && (!usual || config.machine.clock === 'deterministic')))
    return { dhcp: false }
  const device = {
    kind: usualKinds(config).card,
    network: network ?? 'user',
    ...(forward ? { forward } : {}),
    ...(loopback ? { loopback: loopback.includes('open') ? 'open' : loopback.map(Number) } : {}),
  }
  return { device, dhcp: GIVES_ADDRESSES.includes(device.network) }
}

const twice = (kind: string): NonrootError =>
  new NonrootError({
    code: 'usage',
    message: `the configuration has a network card (${kind}) already`,
    thing: '--network',
    remedy: `say it there, or change it by --set devices.0.network=...`,
  })
