/** The memory map of a PC: where it has RAM and ROM. */

import { gpa } from '@nonroot/contracts'
import type { MemoryRegion } from '@nonroot/contracts'

/** VGA memory: not RAM, so that accesses reach a device if there is one. */
const LEGACY_HOLE = { start: 0xa0000, end: 0xc0000 } as const
/** Upper limit of RAM below 4 GiB; from here to 4 GiB are PCI, APICs and firmware. */
export const LOW_END = 0xc000_0000
/** Under firmware it ends here if there is more: SeaBIOS and OVMF put ECAM at 0xB0000000, whatever is there. (SeaBIOS, "dev-q35.h") */
const FIRMWARE_LOW_END = 0x8000_0000
export const FOUR_GIB = 0x1_0000_0000
export const MMIO_WINDOW = { start: gpa(LOW_END), length: FOUR_GIB - LOW_END } as const

/** Where memory that is plugged begins is a multiple of this: Linux adds memory in sections of 128 MiB, on large machines in blocks of 2 GiB. */
const PLUGGABLE_ALIGNMENT = 2 * 2 ** 30

/**
 * RAM of `bytes`: up to 3 GiB (2 GiB under firmware) from 0, the rest from 4 GiB; C0000 to FFFFF is RAM that firmware and boot protocols use as shadow of ROMs.
 * `firmwareLength` bytes of ROM end at 4 GiB. `pluggable` bytes for a memory device are behind all RAM.
 */
export function pcMemoryMap(bytes: number, firmwareLength = 0, pluggable = 0): MemoryRegion[] {
  const lowEnd = Math.min(bytes, firmwareLength > 0 ? FIRMWARE_LOW_END : LOW_END)
  const range = (start: number, end: number, kind: MemoryRegion['kind']): MemoryRegion => ({
    start: gpa(start),
    length: end - start,
    kind,
  })
  const highEnd = FOUR_GIB + bytes - lowEnd
  const plugStart = Math.ceil(highEnd / PLUGGABLE_ALIGNMENT) * PLUGGABLE_ALIGNMENT
  return [
    range(0, Math.min(lowEnd, LEGACY_HOLE.start), 'ram'),
    range(LEGACY_HOLE.end, lowEnd, 'ram'),
    range(FOUR_GIB - Math.ceil(firmwareLength / 4096) * 4096, FOUR_GIB, 'rom'),
    range(FOUR_GIB, highEnd, 'ram'),
    range(plugStart, plugStart + pluggable, 'pluggable'),
  ].filter((region) => region.length > 0)
}
