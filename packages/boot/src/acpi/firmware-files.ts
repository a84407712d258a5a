/** The same tables for firmware, which fetches them by fw_cfg and places them itself, with the script that links them. (QEMU, "BIOS linker/loader") */
import { FirmwareConfiguration } from '@nonroot/contracts'
import type { BootMachine, PlatformDescription } from '@nonroot/contracts'
import { Structure } from '../structure.ts'
import { acpiTables } from './tables.ts'

const TABLES = 'etc/acpi/tables'
const RSDP = 'etc/acpi/rsdp'
const SCRIPT = 'etc/table-loader'

const HEADER = 36
const CHECKSUM = 9 // of a header
const ENTRY = 128
const NAME = 56
const ZONE = { high: 1, below1MiB: 2 }

const allocate = (file: string, alignment: number, zone: number): Structure =>
  new Structure(ENTRY)
    .u32(0, 1)
    .text(4, file)
    .u32(4 + NAME, alignment)
    .u8(8 + NAME, zone)

/** What is at `offset` of `file` is an offset into `target`: make it an address. */
const addPointer = (file: string, target: string, offset: number, size: number): Structure =>
  new Structure(ENTRY)
    .u32(0, 2)
    .text(4, file)
    .text(4 + NAME, target)
    .u32(4 + 2 * NAME, offset)
    .u8(8 + 2 * NAME, size)

const addChecksum = (file: string, offset: number, start: number, length: number): Structure =>
  new Structure(ENTRY)
    .u32(0, 3)
    .text(4, file)
    .u32(4 + NAME, offset)
    .u32(8 + NAME, start)
    .u32(12 + NAME, length)

/** Files by name, for the machine's `FirmwareConfiguration`. */
export function acpiFirmwareFiles(platform: PlatformDescription, vcpuCount: number): ReadonlyMap<string, Uint8Array> {
  const { rsdp, tables, bySignature } = acpiTables(platform, vcpuCount, 0)
  const fadt = bySignature.get('FACP')!.address
  const rsdt = bySignature.get('RSDT')!
  const xsdt = bySignature.get('XSDT')!
  const pointers: [at: number, size: number][] = [
    ...(bySignature.has('FACS') ? [[fadt + 36, 4] satisfies [number, number]] : []),
    [fadt + 40, 4],
    [fadt + 140, 8],
  ]
  for (let at = HEADER; at < rsdt.bytes.length; at += 4) pointers.push([rsdt.address + at, 4])
  for (let at = HEADER; at < xsdt.bytes.length; at += 8) pointers.push([xsdt.address + at, 8])
  const linked = [bySignature.get('FACP')!, rsdt, xsdt]
  // Some firmware takes the old checksum off, some sums over it: both are right where it is zero. (EDK II, "QemuFwCfgAcpi"; SeaBIOS, "romfile_loader")
  for (const { address } of linked) tables[address + CHECKSUM] = 0
  rsdp[8] = rsdp[32] = 0
  const script = [
    allocate(RSDP, 16, ZONE.below1MiB),
    allocate(TABLES, 64, ZONE.high),
    ...pointers.map(([at, size]) => addPointer(TABLES, TABLES, at, size)),
    ...linked.map(({ address, bytes }) => addChecksum(TABLES, address + CHECKSUM, address, bytes.length)),
    addPointer(RSDP, TABLES, 16, 4),
    addPointer(RSDP, TABLES, 24, 8),
    addChecksum(RSDP, 8, 0, 20),
    addChecksum(RSDP, 32, 0, 36),
  ]
  const bytes = new Uint8Array(script.length * ENTRY)
  script.forEach((entry, index) => bytes.set(entry.bytes, index * ENTRY))
  return new Map([
    [TABLES, tables],
    [RSDP, rsdp],
    [SCRIPT, bytes],
  ])
}

/**
 * Hands them to the machine's firmware, if it has any way to ask. What firmware has moved by the time it reads them is where the tables then say it
 * is; what it has switched off is not in them, and zeros keep a file as long as it was.
 */
export function offerAcpiFiles(machine: BootMachine): void {
  const configuration = machine.capability(FirmwareConfiguration)
  if (!configuration) return machine.log.debug('firmware has no way to ask this machine for its ACPI tables')
  for (const [name, { length }] of acpiFirmwareFiles(machine.platform, machine.vcpuCount)) {
    configuration.addFile(name, () => {
      const file = new Uint8Array(length)
      file.set(acpiFirmwareFiles(machine.platform, machine.vcpuCount).get(name)!)
      return file
    })
  }
}
