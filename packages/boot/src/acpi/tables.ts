/** ACPI tables generated from the platform's description: RSDP, RSDT, XSDT, FADT, FACS, MADT, MCFG, HPET, DMAR, DSDT. (ACPI 6.5, "ACPI Software Programming Model") */
import type { PlatformDescription } from '@nonroot/contracts'
import { byteSum, Structure } from '../structure.ts'
import { dsdtTerms } from './dsdt.ts'

type IoApics = NonNullable<PlatformDescription['ioApics']>

const HEADER = 36
const OEM = 'NONRUT'
const OEM_TABLE = 'NONROOT '

/** Fills in a table's header; the checksum makes all its bytes add up to zero. */
function finish(table: Structure, signature: string, revision: number): Uint8Array {
  table
    .text(0, signature)
    .u32(4, table.bytes.length)
    .u8(8, revision)
    .u8(9, 0)
    .text(10, OEM)
    .text(16, OEM_TABLE)
    .u32(24, 1)
    .text(28, 'NRUT')
    .u32(32, 1)
  return table.u8(9, -byteSum(table.bytes) & 0xff).bytes
}

const SYSTEM_IO = 1
/** Generic address structure: space, width, offset, access size, address. */
function genericAddress(table: Structure, at: number, port: number, bits: number): void {
  const accessSize = Math.log2(bits / 8) + 1
  table
    .u8(at, SYSTEM_IO)
    .u8(at + 1, bits)
    .u8(at + 2, 0)
    .u8(at + 3, accessSize)
    .u64(at + 4, port)
}

/** Multiple APIC description: who can take interrupts, and how ISA's are wired. */
function madt(
  { localApic, ioApics, interruptOverrides, legacyPic }: PlatformDescription,
  vcpuCount: number,
): Uint8Array {
  const LOCAL_APIC_LINES = 255 // APIC IDs that a local APIC entry can name
  const entries: number[][] = []
  const u16 = (value: number) => [value & 0xff, (value >> 8) & 0xff]
  const u32 = (value: number) => [...u16(value & 0xffff), ...u16(value >>> 16)]
  const ENABLED = 1
  for (let id = 0; id < vcpuCount; id++) {
    if (id < LOCAL_APIC_LINES) entries.push([0, 8, id, id, ...u32(ENABLED)])
    else entries.push([9, 16, 0, 0, ...u32(id), ...u32(ENABLED), ...u32(id)]) // local x2APIC
  }
  for (const { id, address, gsiBase } of ioApics ?? []) entries.push([1, 12, id, 0, ...u32(address), ...u32(gsiBase)])
  for (const { isaIrq, gsi, trigger, polarity } of interruptOverrides ?? []) {
    const flags = (polarity === 'high' ? 1 : 3) | ((trigger === 'edge' ? 1 : 3) << 2)
    entries.push([2, 10, 0, isaIrq, ...u32(gsi), ...u16(flags)])
  }
  const ALL_PROCESSORS = 0xff
  entries.push([4, 6, ALL_PROCESSORS, ...u16(0), 1]) // NMI on LINT1
  const body = Uint8Array.from(entries.flat())
  const PCAT_COMPAT = 1
  const table = new Structure(HEADER + 8 + body.length)
    .u32(36, localApic?.address ?? 0)
    .u32(40, legacyPic === true ? PCAT_COMPAT : 0)
    .put(44, body)
  return finish(table, 'APIC', 4)
}

/** Where PCI Express configuration space is. */
function mcfg({ address, startBus, endBus }: NonNullable<NonNullable<PlatformDescription['pci']>['ecam']>): Uint8Array {
  return finish(new Structure(HEADER + 24).u64(44, address).u16(52, 0).u8(54, startBus).u8(55, endBus), 'MCFG', 1)
}

function hpetTable(address: number): Uint8Array {
  const EVENT_TIMER_BLOCK = 0x8086a201 // Intel, 64-bit counter, three comparators, legacy replacement, revision 1
  return finish(new Structure(56).u32(36, EVENT_TIMER_BLOCK).u64(44, address).u16(53, 0x80), 'HPET', 1)
}

/** The IOMMU in front of all PCI devices, and of I/O APICs if it remaps interrupts. (VT-d, "DMA Remapping Reporting Structure") */
function dmar({ address, remapsInterrupts }: NonNullable<PlatformDescription['iommu']>, ioApics: IoApics): Uint8Array {
  const ADDRESS_BITS = 40
  const INTERRUPT_REMAPPING = 1
  const INCLUDE_PCI_ALL = 1
  const SCOPE_IO_APIC = 3
  // Software that remaps interrupts needs to know the requester of every I/O APIC.
  const known = ioApics.flatMap(({ id, requesterId }) => (requesterId === undefined ? [] : [{ id, requesterId }]))
  const remapping = remapsInterrupts && known.length === ioApics.length
  const scopes = remapping ? known : []
  const length = 16 + 8 * scopes.length
  const table = new Structure(HEADER + 12 + length)
    .u8(HEADER, ADDRESS_BITS - 1)
    .u8(HEADER + 1, remapping ? INTERRUPT_REMAPPING : 0)
    .u16(HEADER + 12, 0)
    .u16(HEADER + 14, length)
    .u8(HEADER + 16, INCLUDE_PCI_ALL)
    .u64(HEADER + 20, address)
  scopes.forEach(({ id, requesterId }, index) => {
    const [bus, device, number] = [requesterId >> 8, (requesterId >> 3) & 0x1f, requesterId & 7]
    table.put(HEADER + 28 + 8 * index, Uint8Array.of(SCOPE_IO_APIC, 8, 0, 0, id, bus, device, number))
  })
  return finish(table, 'DMAR', 1)
}

// Fixed feature flags and IA-PC boot architecture flags. (ACPI, "Fixed ACPI Description Table Fixed Feature Flags")
const FLAG = {
  wbinvd: 1,
  procC1: 4,
  noSleepButton: 0x20,
  noFixedRtc: 0x40,
  resetRegister: 0x400,
  hardwareReduced: 0x100000,
}
const BOOT = { legacyDevices: 1, i8042: 2, noVga: 4, noCmosRtc: 0x20 }
const UNSUPPORTED_C2 = 101
const UNSUPPORTED_C3 = 1001

/** Fixed ACPI description: ports of the fixed hardware, if it is there. Without an SMI command port the system is always in ACPI mode. */
function fadt(platform: PlatformDescription, facsAddress: number, dsdtAddress: number): Uint8Array {
  const { acpi, i8042, vga, rtc } = platform
  const table = new Structure(276).u32(36, facsAddress).u32(40, dsdtAddress).u64(140, dsdtAddress)
  let flags = FLAG.wbinvd | FLAG.procC1 | FLAG.noSleepButton | FLAG.noFixedRtc
  const boot = BOOT.legacyDevices | (i8042 ? BOOT.i8042 : 0) | (vga ? 0 : BOOT.noVga) | (rtc ? 0 : BOOT.noCmosRtc)
  table.u16(96, UNSUPPORTED_C2).u16(98, UNSUPPORTED_C3).u16(109, boot)
  if (rtc) table.u8(108, 0x32) // CMOS byte of the century
  if (!acpi) {
    flags |= FLAG.hardwareReduced
    const { reducedAcpi } = platform
    if (reducedAcpi) {
      genericAddress(table, 244, reducedAcpi.sleepControl, 8)
      genericAddress(table, 256, reducedAcpi.sleepStatus, 8)
    }
  } else {
    table.u16(46, acpi.sciGsi).u32(48, acpi.smiCommand ?? 0)
    if (acpi.smiCommand !== undefined) table.u8(52, 2).u8(53, 3) // ACPI_ENABLE, ACPI_DISABLE
    table.u32(56, acpi.pm1Event).u8(88, 4)
    genericAddress(table, 148, acpi.pm1Event, 32)
    table.u32(64, acpi.pm1Control).u8(89, 2)
    genericAddress(table, 172, acpi.pm1Control, 16)
    if (acpi.pmTimer !== undefined) {
      table.u32(76, acpi.pmTimer).u8(91, 4)
      genericAddress(table, 208, acpi.pmTimer, 32)
    }
    if (acpi.gpe0) {
      table.u32(80, acpi.gpe0.base).u8(92, acpi.gpe0.length)
      genericAddress(table, 220, acpi.gpe0.base, acpi.gpe0.length * 8 > 64 ? 64 : acpi.gpe0.length * 8)
      table.u8(221, acpi.gpe0.length * 8).u8(223, 1)
    }
    if (acpi.reset) {
      flags |= FLAG.resetRegister
      genericAddress(table, 116, acpi.reset.port, 8)
      table.u8(128, acpi.reset.value)
    }
  }
  table.u32(112, flags).u8(131, 5) // minor version
  return finish(table, 'FACP', 6)
}

/** Firmware ACPI control: the waking vectors, which stay unused. No checksum. */
const facs = (): Uint8Array => new Structure(64).text(0, 'FACS').u32(4, 64).u8(32, 2).bytes

export interface AcpiTables {
  /** Placed at the address that `acpiTables` was given for the RSDP. */
  readonly rsdp: Uint8Array
  /** Go to `tablesAddress`, below 4 GiB, in one piece. */
  readonly tables: Uint8Array
  /** Each table by signature, with its address: for other ways of handing them over (fw_cfg) and for tests. */
  readonly bySignature: ReadonlyMap<string, { readonly address: number; readonly bytes: Uint8Array }>
}

const ALIGNMENT = 64 // FACS asks for it

/** Tables that name each other by address, laid out from `tablesAddress` on. */
export function acpiTables(platform: PlatformDescription, vcpuCount: number, tablesAddress: number): AcpiTables {
  const bySignature = new Map<string, { address: number; bytes: Uint8Array }>()
  let next = tablesAddress
  const add = (bytes: Uint8Array): number => {
    const address = Math.ceil(next / ALIGNMENT) * ALIGNMENT
    bySignature.set(String.fromCharCode(...bytes.subarray(0, 4)), { address, bytes })
    next = address + bytes.length
    return address
  }
  const terms = Uint8Array.from(dsdtTerms(platform))
  const dsdtAddress = add(finish(new Structure(HEADER + terms.length).put(HEADER, terms), 'DSDT', 2))
  const facsAddress = platform.acpi ? add(facs()) : 0
  const listed: number[] = [add(fadt(platform, facsAddress, dsdtAddress))]
  if (platform.localApic) listed.push(add(madt(platform, vcpuCount)))
  if (platform.pci?.ecam) listed.push(add(mcfg(platform.pci.ecam)))
  if (platform.hpet) listed.push(add(hpetTable(platform.hpet.address)))
  if (platform.iommu) listed.push(add(dmar(platform.iommu, platform.ioApics ?? [])))
  const rsdt = new Structure(HEADER + listed.length * 4)
  const xsdt = new Structure(HEADER + listed.length * 8)
  listed.forEach((address, index) => {
    rsdt.u32(HEADER + index * 4, address)
    xsdt.u64(HEADER + index * 8, address)
  })
  const rsdtAddress = add(finish(rsdt, 'RSDT', 1))
  const xsdtAddress = add(finish(xsdt, 'XSDT', 1))

  const tables = new Uint8Array(next - tablesAddress)
  for (const { address, bytes } of bySignature.values()) tables.set(bytes, address - tablesAddress)
  return { rsdp: rsdp(rsdtAddress, xsdtAddress), tables, bySignature }
}

/** Root pointer, revision 2: one checksum over the 20 bytes of version 1, which knows the RSDT alone, one over all. */
function rsdp(rsdtAddress: number, xsdtAddress: number): Uint8Array {
  const root = new Structure(36).text(0, 'RSD PTR ').text(9, OEM).u8(15, 2)
  root.u32(16, rsdtAddress).u32(20, 36).u64(24, xsdtAddress)
  root.u8(8, -byteSum(root.bytes.subarray(0, 20)) & 0xff)
  return root.u8(32, -byteSum(root.bytes) & 0xff).bytes
}
