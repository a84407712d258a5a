/** Allocates places in guest memory and writes to them. Independent of the boot protocol. */
import { invariant } from '@nonroot/contracts'
import type { BootContent, BootMachine, BootState, GuestMemory, PlatformDescription } from '@nonroot/contracts'
import type { ElfImage } from './elf.ts'
import { hex, noRoom } from './errors.ts'

/** Base memory ends here: above it are the BIOS's extended data area, then video memory and ROMs, whether or not there is RAM behind. */
export const BASE_MEMORY_END = 0x9fc00
export const EBDA_LENGTH = 0x400
export const MEBIBYTE = 0x100000
export const GIBIBYTE = 0x40000000
/** 32-bit addresses end here. */
export const FOUR_GIBIBYTES = 4 * GIBIBYTE
const PAGE = 4096

export interface Range {
  readonly start: number
  readonly end: number
}

/** RAM a guest may use freely, ascending: regions of RAM without the extended BIOS data area, the legacy hole, and what the platform uses. */
export function usableRam(guestMemory: GuestMemory, reserved: PlatformDescription['reservedMemory'] = []): Range[] {
  const found: Range[] = []
  for (const { start, length, kind } of guestMemory.regions) {
    if (kind !== 'ram') continue
    const end = start + length
    if (start < BASE_MEMORY_END) found.push({ start, end: Math.min(end, BASE_MEMORY_END) })
    if (end > MEBIBYTE) found.push({ start: Math.max(start, MEBIBYTE), end })
  }
  let free = found
  for (const { address, length } of reserved) {
    free = free.flatMap(({ start, end }) => [
      { start, end: Math.min(end, address) },
      { start: Math.max(start, address + length), end },
    ])
  }
  return free.filter(({ start, end }) => end > start).sort((a, b) => a.start - b.start)
}

const mebibytes = (bytes: number): string => `${Math.ceil(bytes / MEBIBYTE)} MiB`

export class Placement {
  readonly guestMemory: GuestMemory
  readonly ram: readonly Range[]
  private readonly taken: { what: string; start: number; length: number }[] = []

  constructor({ guestMemory, platform }: Pick<BootMachine, 'guestMemory' | 'platform'>) {
    this.guestMemory = guestMemory
    this.ram = usableRam(guestMemory, platform.reservedMemory)
    if (this.ram.length === 0) throw noRoom('a guest', 'memory', 'give the machine some: machine.memory: 128 MiB')
  }

  get placed(): BootState['placed'] {
    return this.taken
  }

  /** Whether the range is usable RAM that nothing was placed in. */
  isFree(start: number, length: number): boolean {
    const end = start + length
    return (
      this.ram.some((range) => start >= range.start && end <= range.end) &&
      this.taken.every((one) => end <= one.start || start >= one.start + one.length)
    )
  }

  /** Bytes at a given address, zeroes after them up to `memorySize`. */
  put(what: string, start: number, data: BootContent, memorySize = data.length): void {
    this.reserve(what, start, memorySize)
    this.write(start, data)
    const rest = memorySize - data.length
    if (rest > 0) invariant(this.guestMemory.fill(start + data.length, rest, 0), `RAM at ${hex(start)} refuses a fill`)
  }

  /** Over what was placed. */
  write(start: number, data: BootContent): void {
    const refused = `RAM at ${hex(start)} refuses ${data.length} bytes`
    if (data instanceof Uint8Array) return invariant(this.guestMemory.writeBytes(start, data), refused)
    const lease = this.guestMemory.lease([{ address: start, length: data.length }], 'write')
    invariant(lease, refused)
    data.readInto(0, lease.views, () => lease.end())
  }

  reserve(what: string, start: number, length: number): void {
    if (!this.isFree(start, length)) {
      const other = this.taken.find((one) => start < one.start + one.length && start + length > one.start)
      const ends = this.ram.map((range) => `${hex(range.start)}..${hex(range.end)}`).join(', ')
      throw noRoom(
        what,
        `memory ${hex(start)}..${hex(start + length)}`,
        other
          ? `${other.what} is at ${hex(other.start)}..${hex(other.start + other.length)}: the file is corrupted, or takes another boot protocol`
          : `the guest has RAM at ${ends}: give at least machine.memory: ${mebibytes(start + length)}`,
      )
    }
    this.taken.push({ what, start, length })
  }

  putElf(elf: ElfImage, what = 'kernel'): void {
    elf.segments.forEach(({ physical, data, memorySize }, index) =>
      this.put(`${what} segment ${index}`, physical, data, memorySize),
    )
  }

  /** A place for a structure that the guest reads at start: the lowest free one below 640 KiB, past real mode's own tables. */
  low(what: string, data: Uint8Array, alignment = 16): number {
    const start = this.search(data.length, alignment, PAGE, BASE_MEMORY_END, 'lowest')
    if (start === undefined)
      throw noRoom(what, `${data.length} bytes below 640 KiB`, 'make the command line shorter, or use fewer modules')
    this.put(what, start, data)
    return start
  }

  /** A place for something large: the highest free one in 1 MiB..`limit`, page-aligned, out of the kernel's way. */
  high(what: string, data: BootContent, limit: number): number {
    const start = this.search(Math.max(data.length, 1), PAGE, MEBIBYTE, limit, 'highest')
    if (start === undefined) {
      const needed = mebibytes(this.taken.reduce((sum, { length }) => sum + length, 0) + data.length + 16 * MEBIBYTE)
      throw noRoom(
        what,
        `${mebibytes(data.length)} of free memory below ${hex(limit)}`,
        `give more: machine.memory: ${needed}, or a smaller ${what}`,
      )
    }
    this.put(what, start, data)
    return start
  }

  private search(
    length: number,
    alignment: number,
    from: number,
    to: number,
    which: 'lowest' | 'highest',
  ): number | undefined {
    // Candidates are the edges of what is there: a free place, if any, touches one.
    const up = (value: number) => Math.ceil(value / alignment) * alignment
    const down = (value: number) => Math.floor(value / alignment) * alignment
    const edges =
      which === 'lowest'
        ? [from, ...this.ram.map(({ start }) => start), ...this.taken.map((one) => one.start + one.length)].map(up)
        : [to, ...this.ram.map(({ end }) => end), ...this.taken.map((one) => one.start)].map((edge) =>
            down(edge - length),
          )
    return edges
      .filter((start) => start >= from && start + length <= to && this.isFree(start, length))
      .sort((a, b) => (which === 'lowest' ? a - b : b - a))[0]
  }
}
