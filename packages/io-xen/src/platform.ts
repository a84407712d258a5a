/** Xen's I/O model: what a domain meets its devices on. The host plays domain 0. */

import { FRAME_SIZE, gpa, VcpuVectors, XenPlatform } from '@nonroot/contracts'
import type { DeviceContext, Gpa, InterruptLine, IoModel, IoModelContext, PlatformDevice, Token } from '@nonroot/contracts'
import { Backends, XenBackends } from './backends/backends.ts'
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

/** For paravirtual guests: events are their interrupts. */
export function createXenPlatform(_options: unknown, context: IoModelContext): XenIoModel {
  const events = new TwoLevelChannels(context.vcpuCount, context.metrics.scope('events'))
  const { platform, store, backends } = build(context, events)
  return { interruptController: events, store, offers: offers(platform, backends) }
}

const RING_PAGES = 2
const ISA_LINES = 16
const FOUR_GIBIBYTES = 2 ** 32

/** Beside local APICs: each vCPU is notified of events by a vector that it chooses, or that is chosen for all. The rings are in the last pages of RAM below 4 GiB. */
export function createXenHvmPlatform(_options: unknown, context: IoModelContext): IoModel & { readonly store: Store } {
  const interrupts = context.capability(VcpuVectors)
  const vectors = new Uint8Array(context.vcpuCount)
  let callback = 0
  let device: PlatformDevice | undefined
  /** The pin or line that notifies the first vCPU. */
  let line: InterruptLine | undefined
  const lines = new Map<number, InterruptLine>()
  const deliver = (vcpu: number): void => {
    if (vectors[vcpu]) interrupts.raise(vcpu, vectors[vcpu])
    else if (callback) interrupts.raiseExternal(vcpu, callback)
    else if (vcpu === 0) {
      // An edge, and a level until the end of the interrupt.
      line?.lower()
      line?.raise()
    }
  }
  const events = new TwoLevelChannels(context.vcpuCount, context.metrics.scope('events'), deliver)
  const end = Math.max(
    ...context.memoryMap.regions
      .filter(({ kind, start }) => kind === 'ram' && start < FOUR_GIBIBYTES)
      .map(({ start, length }) => start + length),
  )
  const first = end - RING_PAGES * FRAME_SIZE
  const { platform, store, backends } = build(context, events, { console: gpa(first), store: gpa(first + FRAME_SIZE) })
  const begin = (): void => {
    vectors.fill(0)
    choose(0)
    platform.begin()
  }
  const choose = (vector: number, chosen?: InterruptLine): void => {
    line?.lower()
    callback = vector
    line = chosen
  }
  /** The guest takes its events from memory: that it has, shows at the end of the interrupt. */
  const watch = (watched: InterruptLine): InterruptLine => {
    watched.onEnd?.(() => {
      if (!events.isNotified(0)) watched.lower()
    })
    return watched
  }
  const connectDevice: XenPlatform['connectDevice'] = (connected) => {
    device = connected
    watch(connected.interrupt)
  }
  const setCallbackPin = (requesterId: number, pin: number): boolean => {
    if (device?.requesterId !== requesterId || pin !== 0) return false
    choose(0, device.interrupt)
    if (events.isNotified(0)) deliver(0)
    return true
  }
  const setCallbackLine = (gsi: number): boolean => {
    if (!device || !(gsi >= 1 && gsi < ISA_LINES)) return false
    const chosen = lines.get(gsi) ?? watch(device.line(gsi))
    lines.set(gsi, chosen)
    choose(0, chosen)
    if (events.isNotified(0)) deliver(0)
    return true
  }
  const setCallbackVector = (vector: number): void => {
    choose(vector)
    for (let vcpu = 0; vcpu < context.vcpuCount; vcpu++) if (!vectors[vcpu] && events.isNotified(vcpu)) deliver(vcpu)
  }
  const setUpcallVector = (vcpu: number, vector: number): void => {
    vectors[vcpu] = vector
    if (events.isNotified(vcpu)) deliver(vcpu)
  }
  const offered: XenPlatform = {
    ...platform,
    begin,
    setUpcallVector,
    setCallbackVector,
    connectDevice,
    setCallbackPin,
    setCallbackLine,
  }
  return {
    store,
    offers: offers(offered, backends),
    describe: () => ({ reservedMemory: [{ address: gpa(first), length: RING_PAGES * FRAME_SIZE }] }),
  }
}

const offers = (platform: XenPlatform, backends: Backends): NonNullable<IoModel['offers']> =>
  new Map<Token<unknown>, (forDevice: DeviceContext) => unknown>([
    [XenPlatform, () => platform],
    [XenBackends, ({ log }) => backends.for(log)],
  ])

interface Pages {
  readonly console: Gpa
  readonly store: Gpa
}

function build(
  context: IoModelContext,
  events: TwoLevelChannels,
  pages?: Pages,
): { platform: XenPlatform; store: Store; backends: Backends } {
  const { dma, memoryMap, console, log, power } = context
  const store = new Store()
  const control = store.connect(0, () => {})
  const backends = new Backends({ store, events, domain: DOMAIN })
  const rings = {
    console: new ConsoleRing(dma, events, console, pages?.console),
    store: new StoreRing(dma, events, store, { domain: DOMAIN, log, page: pages?.store }),
  }
  power.onPowerButton(() => {
    control.write(`${HOME}/control/shutdown`, 'poweroff')
    return true
  })
  const platform: XenPlatform = {
    events,
    ...rings,
    /** Before each boot: ports of the back ends, and what the toolstack writes for a new domain. */
    begin() {
      events.reset()
      rings.store.reset()
      rings.console.reset()
      describeDomain(control, memoryMap.size, context.vcpuCount)
      backends.begin()
    },
    end: () => backends.end(),
    connectGrants: (grants) => backends.connectGrants(grants),
    write: (bytes) => console.write(bytes),
    read: () => 0,
  }
  return { platform, store, backends }
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
