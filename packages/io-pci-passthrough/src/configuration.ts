/**
 * What of a host function's configuration space a guest gets: identity, memory BARs, and message interrupts. Other capabilities and registers read as
 * absent: the guest's bus has a space of its own, and nothing that is written there reaches this one.
 */

import { HOST_MMIO, NonrootError } from '@nonroot/contracts'
import type { HostBus, HostFunction, PciFunctionDescription } from '@nonroot/contracts'

export const Offset = { command: 0x04, bar0: 0x10, capabilities: 0x34 } as const
export const Command = { memory: 0x002, busMaster: 0x004, interruptDisable: 0x400 } as const
export const CapabilityId = { msi: 0x05, msix: 0x11 } as const
const ENABLE = 0x8000
const MSI_ENABLE = 1
const MSIX_ENTRY = 16
/** Bits of a posted descriptor. */
const MOST_VECTORS = 256

export interface HostBar {
  readonly number: number
  readonly kind: 'mmio32' | 'mmio64'
  readonly size: number
  /** Host-physical. */
  readonly base: number
}

interface Message {
  readonly address: number
  readonly data: number
}

export type FunctionIds = Pick<
  PciFunctionDescription,
  'vendorId' | 'deviceId' | 'subsystemVendorId' | 'subsystemId' | 'revision' | 'classCode'
>

export interface Configuration {
  readonly ids: FunctionIds
  /** Without that of the MSI-X table, which is virtual. */
  readonly bars: readonly HostBar[]
  readonly tableBar: HostBar | undefined
  /** Where the capability of its messages is in configuration space. */
  readonly capability: number
  /** MSI-X, else MSI. */
  readonly msix: boolean
  readonly vectors: number
  /** Makes the function send these messages. */
  readonly program: (bus: HostBus, messages: readonly Message[]) => void
}

/** `read` reads the function's configuration space. */
export const readIds = (read: (offset: number, size: 1 | 2 | 4) => number): FunctionIds => ({
  vendorId: read(0x00, 2),
  deviceId: read(0x02, 2),
  revision: read(0x08, 1),
  classCode: read(0x08, 4) >>> 8,
  subsystemVendorId: read(0x2c, 2),
  subsystemId: read(0x2e, 2),
})

/** Throws `device.create` for a function that cannot be assigned. */
export function readConfiguration(bus: HostBus, host: HostFunction): Configuration {
  const at = host.configuration
  const read = (offset: number, size: 1 | 2 | 4): number => bus.readMmio(at + offset, size)
  const all = readBars(bus, host)
  const msix = findCapability(read, CapabilityId.msix)
  const msi = findCapability(read, CapabilityId.msi)
  if (msix === undefined && msi === undefined) {
    throw new NonrootError({
      code: 'device.create',
      message: `host function ${host.at} (${host.name}, ${host.kind}) has neither MSI-X nor MSI, and its pin is not remapped`,
      thing: host.at,
      remedy: 'assign a function that sends messages, as nvme does',
    })
  }
  const table = msix === undefined ? undefined : read(msix + 4, 4)
  const tableBar = table === undefined ? undefined : all.find(({ number }) => number === (table & 7))
  const vectors = msix === undefined ? 1 : Math.min((read(msix + 2, 2) & 0x7ff) + 1, MOST_VECTORS)
  return {
    ids: readIds(read),
    bars: all.filter((bar) => bar !== tableBar),
    tableBar,
    capability: (msix ?? msi)!,
    msix: msix !== undefined,
    vectors,
    program(to, messages) {
      if (tableBar) programMsix(to, at + msix!, tableBar.base + (table! & ~7), messages)
      else programMsi(to, at + msi!, messages[0]!)
    },
  }
}

/** Where a capability is in the configuration space that `read` reads. */
export function findCapability(read: (offset: number, size: 1 | 2 | 4) => number, id: number): number | undefined {
  // A list that a device broke ends after as many capabilities as there is room for.
  let at = read(Offset.capabilities, 1) & ~3
  for (let most = 48; at >= 0x40 && most > 0; most--) {
    if (read(at, 1) === id) return at
    at = read(at + 1, 1) & ~3
  }
  return undefined
}

/** Sizes are found as every driver finds them, by writing ones; decoding is off meanwhile. */
function readBars(bus: HostBus, { configuration }: HostFunction): HostBar[] {
  const command = bus.readMmio(configuration + Offset.command, 2)
  bus.writeMmio(configuration + Offset.command, 2, 0)
  const probe = (number: number): { value: number; mask: number } => {
    const at = configuration + Offset.bar0 + 4 * number
    const value = bus.readMmio(at, 4)
    bus.writeMmio(at, 4, 0xffff_ffff)
    const mask = bus.readMmio(at, 4)
    bus.writeMmio(at, 4, value)
    return { value, mask }
  }
  const bars: HostBar[] = []
  for (let number = 0; number < 6; number++) {
    const { value, mask } = probe(number)
    if (mask === 0) continue
    const wide = (value & 7) === 4
    // Ports are not assigned.
    if (!(value & 1)) {
      const size = ((~(mask & ~15) >>> 0) + 1) % 2 ** 32
      bars.push({ number, kind: wide ? 'mmio64' : 'mmio32', size, base: HOST_MMIO.start + ((value & ~15) >>> 0) })
    }
    if (wide) number++
  }
  bus.writeMmio(configuration + Offset.command, 2, command)
  return bars
}

function programMsix(bus: HostBus, capability: number, table: number, messages: readonly Message[]): void {
  messages.forEach(({ address, data }, vector) => {
    const entry = table + vector * MSIX_ENTRY
    bus.writeMmio(entry, 4, address)
    bus.writeMmio(entry + 4, 4, 0)
    bus.writeMmio(entry + 8, 4, data)
    bus.writeMmio(entry + 12, 4, 0)
  })
  bus.writeMmio(capability + 2, 2, ENABLE)
}

function programMsi(bus: HostBus, capability: number, { address, data }: Message): void {
  // With a 64-bit address, as `MsiOffset` of every function on the host's bus.
  bus.writeMmio(capability + 4, 4, address)
  bus.writeMmio(capability + 8, 4, 0)
  bus.writeMmio(capability + 12, 2, data)
  bus.writeMmio(capability + 2, 2, MSI_ENABLE)
}
