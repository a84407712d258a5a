/** The MP table: processors and interrupts for systems without ACPI. (Intel, "MultiProcessor Specification", version 1.4) */
import type { BootMachine, PlatformDescription } from '@nonroot/contracts'
import { byteSum, Structure } from '../structure.ts'

/** The floating pointer is searched in the BIOS's 64 KiB, on 16 bytes; the table lies behind it. */
const POINTER_ADDRESS = 0xf0000
const TABLE_ADDRESS = 0xf0010
const AREA_END = 0x100000
const HEADER = 44
const REVISION_1_4 = 4

const ENTRY = { processor: 0, bus: 1, ioApic: 2, ioInterrupt: 3, localInterrupt: 4 } as const
const BUS = { pci: 0, isa: 1 } as const
const INTERRUPT = { vectored: 0, nmi: 1, extInt: 3 } as const
const ENABLED = 1
const BOOTSTRAP = 2
const EVERY_APIC = 0xff
/** APIC IDs that an entry can name. */
const MOST_PROCESSORS = 255
const APIC_VERSION = 0x14
const IO_APIC_VERSION = 0x20
/** What a processor entry says of CPUID: family 6, with FPU and APIC. */
const SIGNATURE = 0x600
const FEATURES = 0x201
const ISA_IRQS = 16
const CASCADE = 2
const PCI_DEVICES = 32
const PINS = 4

/** False: there is nothing to describe, or no memory there. */
export function placeMpTable({
  guestMemory,
  platform,
  vcpuCount,
}: Pick<BootMachine, 'guestMemory' | 'platform' | 'vcpuCount'>): boolean {
  const table = mpTable(platform, vcpuCount)
  if (!table || TABLE_ADDRESS + table.length > AREA_END) return false
  const pointer = new Structure(16).text(0, '_MP_').u32(4, TABLE_ADDRESS).u8(8, 1).u8(9, REVISION_1_4)
  pointer.u8(10, -byteSum(pointer.bytes) & 0xff)
  return guestMemory.writeRom(POINTER_ADDRESS, pointer.bytes) && guestMemory.writeRom(TABLE_ADDRESS, table)
}

/** Undefined for a machine without APICs. */
export function mpTable(platform: PlatformDescription, vcpuCount: number): Uint8Array | undefined {
  const { localApic, ioApics } = platform
  const ioApic = ioApics?.[0]
  if (!localApic || !ioApic) return undefined
  const entries = [
    ...Array.from({ length: Math.min(vcpuCount, MOST_PROCESSORS) }, (_, id) => processor(id)),
    bus(BUS.pci, 'PCI   '),
    bus(BUS.isa, 'ISA   '),
    ...ioApics.map(({ id, address }) =>
      new Structure(8).u8(0, ENTRY.ioApic).u8(1, id).u8(2, IO_APIC_VERSION).u8(3, ENABLED).u32(4, address),
    ),
    ...isaInterrupts(platform, ioApic.id),
    ...pciInterrupts(platform, ioApic.id),
    interrupt(ENTRY.localInterrupt, INTERRUPT.extInt, 0, BUS.isa, 0, 0, 0),
    interrupt(ENTRY.localInterrupt, INTERRUPT.nmi, 0, BUS.isa, 0, EVERY_APIC, 1),
  ]
  const length = entries.reduce((sum, { bytes }) => sum + bytes.length, HEADER)
  const table = new Structure(length)
    .text(0, 'PCMP')
    .u16(4, length)
    .u8(6, REVISION_1_4)
    .text(8, 'NONROOT ')
    .text(16, 'nonroot     ')
    .u16(34, entries.length)
    .u32(36, localApic.address)
  let at = HEADER
  for (const { bytes } of entries) {
    table.put(at, bytes)
    at += bytes.length
  }
  return table.u8(7, -byteSum(table.bytes) & 0xff).bytes
}

const processor = (id: number): Structure =>
  new Structure(20)
    .u8(0, ENTRY.processor)
    .u8(1, id)
    .u8(2, APIC_VERSION)
    .u8(3, ENABLED | (id === 0 ? BOOTSTRAP : 0))
    .u32(4, SIGNATURE)
    .u32(8, FEATURES)

const bus = (id: number, name: string): Structure => new Structure(8).u8(0, ENTRY.bus).u8(1, id).text(2, name)

/** Polarity and trigger as the bus has them, or stated. */
const flagsOf = (polarity: 'high' | 'low', trigger: 'edge' | 'level'): number =>
  (polarity === 'high' ? 1 : 3) | ((trigger === 'edge' ? 1 : 3) << 2)

function interrupt(
  type: number,
  kind: number,
  flags: number,
  sourceBus: number,
  sourceIrq: number,
  apic: number,
  pin: number,
): Structure {
  const target = new Structure(8).u8(0, type).u8(1, kind).u16(2, flags)
  return target.u8(4, sourceBus).u8(5, sourceIrq).u8(6, apic).u8(7, pin)
}

function isaInterrupts({ interruptOverrides }: PlatformDescription, apic: number): Structure[] {
  const found: Structure[] = []
  for (let irq = 0; irq < ISA_IRQS; irq++) {
    const override = interruptOverrides?.find(({ isaIrq }) => isaIrq === irq)
    if (irq === CASCADE && !override) continue
    const flags = override ? flagsOf(override.polarity, override.trigger) : 0
    found.push(interrupt(ENTRY.ioInterrupt, INTERRUPT.vectored, flags, BUS.isa, irq, apic, override?.gsi ?? irq))
  }
  return found
}

/** Source "IRQ" of a PCI device: its number and pin. */
function pciInterrupts({ pci }: PlatformDescription, apic: number): Structure[] {
  const found: Structure[] = []
  const intx = pci?.intx ?? []
  for (let device = 0; device < PCI_DEVICES && intx.length > 0; device++) {
    for (let pin = 0; pin < PINS; pin++) {
      const target = intx[(device + pin) % intx.length]!
      found.push(interrupt(ENTRY.ioInterrupt, INTERRUPT.vectored, 0, BUS.pci, (device << 2) | pin, apic, target))
    }
  }
  return found
}
