/** Multiboot 1: ELF or a.out-kludge kernels with modules, command line and memory map, entered in protected mode. (GNU, "Multiboot Specification version 0.6.96") */
import type { BootImage, BootMachine, BootProtocol, BootState, VcpuState } from '@nonroot/contracts'
import { placeFirmwareTables } from './bios/placing.ts'
import { isElf, physicalEntry, readElf } from './elf.ts'
import { badImage, hex } from './errors.ts'
import { ImageReader } from './image-reader.ts'
import { RANGE_RAM, memoryMap } from './memory-map.ts'
import { BASE_MEMORY_END, FOUR_GIBIBYTES, MEBIBYTE, Placement } from './placement.ts'
import { protectedMode } from './registers.ts'
import { Structure, cString } from './structure.ts'

const HEADER_MAGIC = 0x1badb002
const BOOT_MAGIC = 0x2badb002n
const SEARCHED = 8192
// Flags of the header. Of bits 0 to 15 a loader must know all that are set; a video mode it may leave undone.
const KNOWN_REQUIREMENTS = 0x7 // page-aligned modules, memory information, video mode
const ADDRESSES_VALID = 0x10000

// Flags of the information structure.
const INFO = { memory: 1, cmdline: 4, modules: 8, memoryMap: 0x40, loaderName: 0x200 }
const INFO_SIZE = 120
const MODULE_SIZE = 16
const MAP_ENTRY_SIZE = 24 // with its own size field, which does not count itself

export const createMultiboot = (): BootProtocol<VcpuState> => ({
  load(image: BootImage, machine: BootMachine): BootState<VcpuState> {
    if (!image.kernel) throw badImage('kernel', 'file', 'not given', 'name one: boot.multiboot.kernel: ./kernel.elf')
    const reader = new ImageReader('kernel', image.kernel)
    const header = findHeader(reader)
    const flags = reader.u32(header + 4, 'multiboot flags')
    const unknown = flags & 0xffff & ~KNOWN_REQUIREMENTS
    if (unknown !== 0)
      throw reader.bad('multiboot flags', hex(flags), `bits ${hex(unknown)} ask for what Multiboot 1 does not define`)

    const placement = new Placement(machine)
    const entry = (flags & ADDRESSES_VALID) !== 0 ? loadByHeader(reader, header, placement) : loadElf(reader, placement)
    const info = describe(placement, image, machine)
    placeFirmwareTables(placement, machine)
    const rbx = BigInt(placement.low('multiboot information', info.bytes))
    return {
      registers: protectedMode(placement, { rip: BigInt(entry), rax: BOOT_MAGIC, rbx }),
      placed: placement.placed,
    }
  },
})

/** In the first 8 KiB, on a doubleword, with magic, flags and checksum adding up to zero. */
function findHeader(reader: ImageReader): number {
  for (let at = 0; at + 12 <= Math.min(reader.length, SEARCHED); at += 4) {
    if (reader.u32(at, 'multiboot magic') !== HEADER_MAGIC) continue
    const sum = HEADER_MAGIC + reader.u32(at + 4, 'multiboot flags') + reader.u32(at + 8, 'multiboot checksum')
    if (sum >>> 0 === 0) return at
  }
  throw reader.bad(
    'multiboot header',
    'not there',
    `its magic ${hex(HEADER_MAGIC)} with a right checksum should be in the first 8 KiB`,
  )
}

/** The "a.out kludge": the header itself says what goes where. */
function loadByHeader(reader: ImageReader, header: number, placement: Placement): number {
  const field = (index: number, name: string) => reader.u32(header + 12 + index * 4, name)
  const headerAddress = field(0, 'header_addr')
  const loadAddress = field(1, 'load_addr')
  const loadEnd = field(2, 'load_end_addr')
  const bssEnd = field(3, 'bss_end_addr')
  const entry = field(4, 'entry_addr')
  const offset = header - (headerAddress - loadAddress)
  if (headerAddress < loadAddress || offset < 0) {
    throw reader.bad(
      'load_addr',
      hex(loadAddress),
      `it should be at most header_addr (${hex(headerAddress)}), with the file's start at or before it`,
    )
  }
  const length = loadEnd === 0 ? reader.length - offset : loadEnd - loadAddress
  if (length <= 0) throw reader.bad('load_end_addr', hex(loadEnd), `it should be above load_addr (${hex(loadAddress)})`)
  const data = reader.part(offset, length, 'load_addr..load_end_addr')
  const memorySize = bssEnd === 0 ? length : bssEnd - loadAddress
  if (memorySize < length)
    throw reader.bad('bss_end_addr', hex(bssEnd), `it should be at least ${hex(loadAddress + length)}`)
  if (entry < loadAddress || entry >= loadAddress + memorySize)
    throw reader.bad('entry_addr', hex(entry), 'it is outside what is loaded')
  placement.put('kernel', loadAddress, data, memorySize)
  return entry
}

function loadElf(reader: ImageReader, placement: Placement): number {
  if (!isElf(reader))
    throw reader.bad(
      'format',
      'neither ELF nor with addresses in its multiboot header',
      'link it as ELF, or set flag bit 16',
    )
  const elf = readElf(reader)
  const entry = physicalEntry(elf, reader)
  if (entry >= FOUR_GIBIBYTES)
    throw reader.bad('e_entry', hex(entry), 'Multiboot enters in 32-bit mode: it should be below 4 GiB')
  placement.putElf(elf)
  return entry
}

function describe(placement: Placement, image: BootImage, machine: BootMachine): Structure {
  const map = memoryMap(machine)
  const mapTable = new Structure(map.length * MAP_ENTRY_SIZE)
  map.forEach(({ start, length, type }, index) => {
    const at = index * MAP_ENTRY_SIZE
    mapTable
      .u32(at, MAP_ENTRY_SIZE - 4)
      .u64(at + 4, start)
      .u64(at + 12, length)
      .u32(at + 20, type)
  })
  const modules = [
    ...(image.initrd?.length ? [{ content: image.initrd, cmdline: 'initrd' }] : []),
    ...(image.modules ?? []),
  ]
  const list = new Structure(modules.length * MODULE_SIZE)
  modules.forEach(({ content, cmdline }, index) => {
    const start = placement.high(`module ${index}`, content, FOUR_GIBIBYTES)
    const at = index * MODULE_SIZE
    list
      .u32(at, start)
      .u32(at + 4, start + content.length)
      .u32(at + 8, placement.low(`command line of module ${index}`, cString(cmdline)))
  })
  const ramFrom = (start: number) => map.find((entry) => entry.start === start && entry.type === RANGE_RAM)?.length ?? 0
  const info = new Structure(INFO_SIZE)
    .u32(4, Math.min(ramFrom(0), BASE_MEMORY_END) / 1024)
    .u32(8, ramFrom(MEBIBYTE) / 1024)
    .u32(16, placement.low('command line', cString(image.cmdline ?? '')))
    .u32(44, mapTable.bytes.length)
    .u32(48, placement.low('memory map', mapTable.bytes))
    .u32(64, placement.low('name of the loader', cString('nonroot')))
  let flags = INFO.memory | INFO.cmdline | INFO.memoryMap | INFO.loaderName
  if (modules.length > 0) {
    flags |= INFO.modules
    info.u32(20, modules.length).u32(24, placement.low('module list', list.bytes))
  }
  return info.u32(0, flags)
}
