/** Xen's I/O model: what a domain meets its devices on. The host plays domain 0. */

import { XenPlatform } from '@nonroot/contracts'
import type { IoModel, IoModelContext } from '@nonroot/contracts'
import { ConsoleRing } from './console-ring.ts'
import { TwoLevelChannels } from './event-channels.ts'
import { StoreRing } from './store/ring.ts'
import { Store, type StoreConnection } from './store/store.ts'

/** The domain's number, until a host has several. */
export const DOMAIN = 1

export interface XenIoModel extends IoModel {
  readonly interruptController: TwoLevelChannels
  readonly store: Store
}

export function createXenPlatform(_options: unknown, context: IoModelContext): XenIoModel {
  const { dma, memoryMap, console, metrics, log, power } = context
  const events = new TwoLevelChannels(context.vcpuCount, metrics.scope('events'))
  const store = new Store()
  const control = store.connect(0, () => {})
  const rings = {
    console: new ConsoleRing(dma, events, console),
    store: new StoreRing(dma, events, store, DOMAIN, log),
  }
  /** Before each boot: ports of the back ends, and what the toolstack writes for a new domain. */
  const reset = (): void => {
    events.reset()
    rings.store.reset()
    rings.console.reset()
    describeDomain(control, memoryMap.size, context.vcpuCount)
  }
  power.onPowerButton(() => void control.write(`${HOME}/control/shutdown`, 'poweroff'))
  const platform: XenPlatform = {
    events,
    ...rings,
    begin: reset,
    write: (bytes) => console.write(bytes),
    read: () => 0,
  }
  return { interruptController: events, store, offers: new Map([[XenPlatform, () => platform]]) }
}

const HOME = `/local/domain/${DOMAIN}`
/** What is the domain's own to write. (Xen, "docs/misc/xenstore-paths.pandoc") */
const OWN = [
  'attr',
  'control/shutdown',
  'control/feature-poweroff',
  'control/feature-reboot',
  'control/feature-suspend',
  'control/sysrq',
  'data',
  'device/suspend/event-channel',
  'drivers',
  'feature',
  'error',
  'hvmloader',
]

function describeDomain(control: StoreConnection, memory: number, vcpuCount: number): void {
  control.remove(HOME)
  const kibibytes = String(memory / 1024)
  const values: Readonly<Record<string, string>> = {
    name: 'nonroot',
    domid: String(DOMAIN),
    vm: '/vm/0',
    'memory/target': kibibytes,
    'memory/static-max': kibibytes,
    'control/platform-feature-multiprocessor-suspend': '1',
    'console/type': 'xenconsoled',
    'console/output': 'pty',
  }
  control.write(HOME, '')
  control.setPermissions(HOME, [
    { domain: 0, read: false, write: false },
    { domain: DOMAIN, read: true, write: false },
  ])
  for (const [name, value] of Object.entries(values)) control.write(`${HOME}/${name}`, value)
  for (const name of OWN) {
    control.write(`${HOME}/${name}`, undefined)
    control.setPermissions(`${HOME}/${name}`, [{ domain: DOMAIN, read: false, write: false }])
  }
  for (let vcpu = 0; vcpu < vcpuCount; vcpu++) control.write(`${HOME}/cpu/${vcpu}/availability`, 'online')
  control.write('/vm/0/name', 'nonroot')
}
