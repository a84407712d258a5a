/** The memory map that boot protocols encode, each in its own layout. Types are those of ACPI's address range table. (ACPI, "System Address Map Interfaces") */
import type { BootMachine } from '@nonroot/contracts'
import { BASE_MEMORY_END, EBDA_LENGTH, usableRam } from './placement.ts'

export const RANGE_RAM = 1
export const RANGE_RESERVED = 2

export interface MapEntry {
  readonly start: number
  readonly length: number
  readonly type: number
}

/** Where PC firmware keeps its tables; ours are there too. */
const FIRMWARE_AREA = { start: 0xe0000, length: 0x20000, type: RANGE_RESERVED }
const ECAM_BUS = 1 << 20 // configuration space of one bus

/** Ascending, no two overlap. */
export function memoryMap({ guestMemory, platform }: BootMachine): MapEntry[] {
  const entries: MapEntry[] = usableRam(guestMemory, platform.reservedMemory).map(({ start, end }) => ({
    start,
    length: end - start,
    type: RANGE_RAM,
  }))
  if (guestMemory.isRam(BASE_MEMORY_END, EBDA_LENGTH))
    entries.push({ start: BASE_MEMORY_END, length: EBDA_LENGTH, type: RANGE_RESERVED })
  entries.push(FIRMWARE_AREA)
  for (const { address, length } of platform.reservedMemory ?? [])
    entries.push({ start: address, length, type: RANGE_RESERVED })
  for (const { start, length, kind } of guestMemory.regions) {
    if (kind === 'rom' && start >= 0x100000) entries.push({ start, length, type: RANGE_RESERVED })
  }
  const ecam = platform.pci?.ecam
  // Linux uses ECAM only where the memory map reserves it.
  if (ecam)
    entries.push({ start: ecam.address, length: (ecam.endBus - ecam.startBus + 1) * ECAM_BUS, type: RANGE_RESERVED })
  return entries.sort((a, b) => a.start - b.start)
}
