/** Images made by hand, machines and a seeded generator, for this package's tests. */
import { NonrootError, gpa } from '@nonroot/contracts'
import type { BootMachine, GuestMemory, MemoryRegion, PlatformDescription } from '@nonroot/contracts'
import { Structure } from './structure.ts'

export const MEBIBYTE = 0x100000

export const PLATFORM: PlatformDescription = {
  localApic: { address: gpa(0xfee00000) },
  ioApics: [{ id: 0, address: gpa(0xfec00000), gsiBase: 0, pins: 24 }],
  legacyPic: true,
  interruptOverrides: [
    { isaIrq: 0, gsi: 2, trigger: 'edge', polarity: 'high' },
    { isaIrq: 9, gsi: 9, trigger: 'level', polarity: 'high' },
  ],
  acpi: {
    pm1Event: 0x600,
    pm1Control: 0x604,
    pmTimer: 0x608,
    gpe0: { base: 0x620, length: 16 },
    sciGsi: 9,
    sleepTypeS5: 0,
    reset: { port: 0xcf9, value: 6 },
  },
  pci: {
    ecam: { address: gpa(0xe0000000), startBus: 0, endBus: 255 },
    windows: [
      { kind: 'io', base: 0x1000, length: 0xf000 },
      { kind: 'mmio', base: 0xc0000000, length: 0x20000000 },
    ],
    intx: [16, 17, 18, 19],
    picRouting: { device: 31, function: 0, registers: [0x60, 0x61, 0x68, 0x69], irqs: [5, 10, 11] },
  },
  serial: [{ port: 0x3f8, gsi: 4 }],
  rtc: { port: 0x70, gsi: 8 },
  i8042: true,
  hpet: { address: gpa(0xfed00000) },
  virtioMmio: [{ address: gpa(0xfeb00000), length: 0x200, gsi: 20 }],
}

/** Guest memory that holds what boot protocols need of it: sparse, a page at a time. */
export function createSparseMemory(regions: readonly MemoryRegion[]): GuestMemory {
  const pages = new Map<number, Uint8Array>()
  const within = (start: number, length: number, kinds: readonly string[]) =>
    regions.some(
      (region) =>
        kinds.includes(region.kind) && start >= region.start && start + length <= region.start + region.length,
    )
  const each = (
    start: number,
    length: number,
    act: (page: Uint8Array, at: number, done: number, size: number) => void,
  ) => {
    for (let done = 0; done < length;) {
      const number = Math.floor((start + done) / 4096)
      const at = (start + done) % 4096
      const size = Math.min(4096 - at, length - done)
      let page = pages.get(number)
      if (!page) pages.set(number, (page = new Uint8Array(4096)))
      act(page, at, done, size)
      done += size
    }
  }
  const write = (kinds: readonly string[]) => (start: number, from: Uint8Array) => {
    if (!within(start, from.length, kinds)) return false
    each(start, from.length, (page, at, done, size) => page.set(from.subarray(done, done + size), at))
    return true
  }
  const memory: Partial<GuestMemory> = {
    size: regions.reduce((sum, { kind, length }) => sum + (kind === 'ram' ? length : 0), 0),
    regions,
    isRam: (start, length) => within(start, length, ['ram']),
    readBytes(start, into) {
      if (!within(start, into.length, ['ram', 'rom'])) return false
      each(start, into.length, (page, at, done, size) => into.set(page.subarray(at, at + size), done))
      return true
    },
    writeBytes: write(['ram']),
    lease(pieces) {
      if (!pieces.every(({ address, length }) => within(address, length, ['ram']))) return undefined
      const views: Uint8Array[] = []
      for (const { address, length } of pieces)
        each(address, length, (page, at, _, size) => views.push(page.subarray(at, at + size)))
      return { views, end: () => {} }
    },
    writeRom: write(['ram', 'rom']),
    fill(start, length, value) {
      if (!within(start, length, ['ram'])) return false
      // Untouched pages are zero by themselves.
      for (const number of pages.keys()) {
        const from = Math.max(start, number * 4096)
        const to = Math.min(start + length, number * 4096 + 4096)
        if (from < to) pages.get(number)!.fill(value, from - number * 4096, to - number * 4096)
      }
      return true
    },
  }
  return memory as GuestMemory
}

const quiet = { debug: () => {}, info: () => {}, warn: () => {}, error: () => {} }

export const createMachine = (
  mebibytes = 256,
  platform = PLATFORM,
  more: readonly MemoryRegion[] = [],
): BootMachine => ({
  guestMemory: createSparseMemory([{ start: gpa(0), length: mebibytes * MEBIBYTE, kind: 'ram' }, ...more]),
  vcpuCount: 2,
  platform,
  capability: () => undefined,
  log: quiet,
})

/** A view of `length` bytes of the guest's memory at `start`. */
export function memoryAt({ guestMemory }: BootMachine, start: number | bigint, length: number): DataView {
  const bytes = new Uint8Array(length)
  if (!guestMemory.readBytes(Number(start), bytes)) throw new Error(`no memory at ${start}`)
  return new DataView(bytes.buffer)
}

/** A bzImage of protocol 2.15, relocatable, preferred at 16 MiB, with 64 KiB of "code". */
export function createBzImage(): Structure {
  const CODE = 0x10000
  return new Structure(0x400 + CODE)
    .u8(0x1f1, 1)
    .u32(0x1f4, CODE / 16)
    .u16(0x1fe, 0xaa55)
    .u16(0x200, 0x6aeb)
    .text(0x202, 'HdrS')
    .u16(0x206, 0x20f)
    .u8(0x211, 1)
    .u32(0x214, MEBIBYTE)
    .u32(0x22c, 0x7fffffff)
    .u32(0x230, 0x200000)
    .u8(0x234, 1)
    .u16(0x236, 1)
    .u32(0x238, 2047)
    .u64(0x258, 0x1000000)
    .u32(0x260, 0x200000)
    .text(0x400, 'code')
}

/** ELF64 with one segment at 16 MiB, linked high as Linux is, and a PVH note. */
export function createElf64(): Structure {
  const elf = new Structure(0x2000).u32(0, 0x464c457f).u8(4, 2).u8(5, 1).u8(6, 1).u16(16, 2).u16(18, 62).u32(20, 1)
  elf.u64(24, 0xffffffff81000000n).u64(32, 64).u16(52, 64).u16(54, 56).u16(56, 2)
  elf.u32(64, 1).u64(72, 0x1000).u64(80, 0xffffffff81000000n).u64(88, 0x1000000).u64(96, 0x800).u64(104, 0x3000)
  elf.u32(120, 4).u64(128, 0x1800).u64(152, 20).u64(160, 20)
  elf.u32(0x1800, 4).u32(0x1804, 4).u32(0x1808, 18).text(0x180c, 'Xen').u32(0x1810, 0x1000100)
  return elf.text(0x1000, 'code')
}

/** What a call throws, which must be one of ours. */
export function errorOf(action: () => unknown): NonrootError | undefined {
  try {
    action()
    return undefined
  } catch (error) {
    if (error instanceof NonrootError && error.code !== 'internal') return error
    throw error
  }
}

/** xorshift32: the same numbers every time. */
export function seeded(seed: number): (limit: number) => number {
  let state = seed >>> 0 || 1
  return (limit) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % limit
  }
}
