/** Places the ACPI tables where systems look for them or, if there is no memory there, in low memory. */
import type { BootMachine } from '@nonroot/contracts'
import type { Placement } from '../placement.ts'
import { acpiTables } from './tables.ts'

/** The RSDP is searched from here to 1 MiB, on 16 bytes. (ACPI, "Finding the RSDP on IA-PC Systems") */
const RSDP_ADDRESS = 0xe0000
const TABLES_ADDRESS = 0xe0040
const AREA_END = 0x100000

/** Gives the RSDP's address; undefined where the machine has nothing that ACPI describes. */
export function placeAcpiTables(
  placement: Placement,
  { guestMemory, platform, vcpuCount, log }: BootMachine,
): number | undefined {
  if (!platform.acpi && !platform.localApic && !platform.pci) return undefined
  const { rsdp, tables } = acpiTables(platform, vcpuCount, TABLES_ADDRESS)
  if (
    TABLES_ADDRESS + tables.length <= AREA_END &&
    guestMemory.writeRom(RSDP_ADDRESS, rsdp) &&
    guestMemory.writeRom(TABLES_ADDRESS, tables)
  ) {
    return RSDP_ADDRESS
  }
  // No memory there (or no room): a boot protocol that passes the address on still works.
  log.debug(`no memory at 0x${RSDP_ADDRESS.toString(16)}: ACPI tables go to conventional memory`)
  const start = placement.low('ACPI tables', new Uint8Array(tables.length), 64)
  const moved = acpiTables(platform, vcpuCount, start)
  placement.write(start, moved.tables)
  return placement.low('ACPI root pointer', moved.rsdp)
}
