/** The guest's side of an assigned function: a PC with its PCI bus, no vCPU. Accesses go where a processor's would. */

import { gpa } from '@nonroot/contracts'
import type { Assignment, Device, IoModel, IoSize } from '@nonroot/contracts'
import emulated from '@nonroot/io-emulated'
import passthrough, { createIntelIommu } from '@nonroot/io-pci-passthrough'
import { createTestConsole, createTestLog, createTestMetrics } from '@nonroot/testkit'
import { DeviceContexts, KernelIoBus } from '../bus/index.ts'
import type { DemandGuestMemory } from '../memory/index.ts'
import { WallClock } from '../time/index.ts'

const ECAM = 0xe000_0000
const Config = { command: 0x04, bar0: 0x10, capabilities: 0x34 } as const

/** `iommu`: the guest has one of its own. */
export async function guestPc(
  guestMemory: DemandGuestMemory,
  assignmentFor: ((bus: KernelIoBus) => Assignment) | undefined,
  iommu = false,
) {
  const bus = new KernelIoBus(createTestMetrics())
  const assignment = assignmentFor?.(bus)
  const log = createTestLog()
  const contexts = new DeviceContexts({
    ...(assignment ? { assignment } : {}),
    ...{ bus, log, dma: guestMemory, memoryMap: guestMemory, frames: guestMemory },
    ...{ clock: new WallClock(), metrics: createTestMetrics(), vcpuCount: 1, console: createTestConsole() },
    power: { powerOff() {}, reset() {}, exit() {}, crashed() {}, onPowerButton: () => () => {} },
    backends: { open: () => Promise.reject(new Error('none')) },
    resolvePath: (_folder, path) => path,
  })
  const definition = emulated.strategies!.find(({ role, name }) => role === 'io' && name === 'pc')!
  const parsed = await definition.options['~standard'].validate({})
  const pc = (await definition.create(
    (parsed as { value: never }).value,
    contexts.modelContext('pc', '/') as never,
  )) as IoModel
  contexts.addModel(pc, 'stack.io[0]')
  if (iommu) contexts.addModel(createIntelIommu({}, contexts.modelContext('iommu', '/')), 'stack.io[1]')
  const sent: [address: number, data: number][] = []
  const { messages } = contexts.interrupts
  const { send } = messages
  Object.assign(messages, {
    send(address: number, data: number) {
      sent.push([address, data])
      send(address, data)
    },
  })
  const passthroughDevice = passthrough.devices!.find(({ kind }) => kind === 'pci-passthrough')!
  let slot = 0
  return {
    ...{ bus, contexts, pc },
    /** Messages of the guest's devices, in order. */
    sent,
    interrupts: contexts.interrupts,
    async assign(host: string) {
      const context = contexts.deviceContext(`assigned${slot}`, '/')
      const device = (await passthroughDevice.create({ host } as never, context)) as Device
      return { device, pci: guestFunction(bus, ++slot) }
    },
    /** What is at a guest-physical address: registers that the second stage would map, RAM, or a device of the machine's bus. */
    where(address: number): string {
      const registers = guestMemory.registerPage(address)
      if (registers !== undefined) return `host 0x${registers.toString(16)}`
      return guestMemory.isRam(address, 1) ? 'ram' : (bus.ownerAt(address) ?? 'nothing')
    },
  }
}

/** Configuration space of a function of the guest's bus, as its driver accesses it. */
function guestFunction(bus: KernelIoBus, device: number) {
  const at = ECAM + device * 0x8000
  const read = (offset: number, size: IoSize = 4): number => bus.readMmio(gpa(at + offset), size)
  const write = (offset: number, value: number, size: IoSize = 4): void =>
    void bus.writeMmio(gpa(at + offset), size, value)
  return {
    ...{ read, write },
    capabilities(): number[] {
      const found: number[] = []
      for (let next = read(Config.capabilities, 1); next !== 0; next = read(next + 1, 1)) found.push(read(next, 1))
      return found
    },
    bar: (number: number): number => (read(Config.bar0 + 4 * number) & ~15) >>> 0,
    /** As a driver places it: decoding off, both halves, decoding on. */
    place(number: number, address: number, wide = true): void {
      write(Config.command, 0, 2)
      write(Config.bar0 + 4 * number, address % 2 ** 32)
      if (wide) write(Config.bar0 + 4 * number + 4, Math.floor(address / 2 ** 32))
      write(Config.command, 6, 2)
    },
  }
}
