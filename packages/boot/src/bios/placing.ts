/** Places what firmware leaves in memory, if no firmware runs: data areas, MP table, ACPI tables. */
import type { BootMachine } from '@nonroot/contracts'
import { placeAcpiTables } from '../acpi/placing.ts'
import type { Placement } from '../placement.ts'
import { placeBiosDataArea } from './data-area.ts'
import { placeMpTable } from './mp-table.ts'

/** Gives the ACPI root pointer's address; undefined where the machine has nothing that ACPI describes. */
export function placeFirmwareTables(placement: Placement, machine: BootMachine): number | undefined {
  placeBiosDataArea(placement, machine)
  placeMpTable(machine)
  return placeAcpiTables(placement, machine)
}
