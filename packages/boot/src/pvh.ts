/** PVH: an ELF kernel entered in 32-bit protected mode at the address its Xen note names. (Xen, "x86/HVM direct boot ABI"; public/arch-x86/hvm/start_info.h) */
import type { BootImage, BootMachine, BootProtocol, BootState, VcpuState } from '@nonroot/contracts'
import { placeFirmwareTables } from './bios/placing.ts'
import { type ElfImage, isElf, readElf } from './elf.ts'
import { badImage, hex } from './errors.ts'
import { ImageReader } from './image-reader.ts'
import { memoryMap } from './memory-map.ts'
import { FOUR_GIBIBYTES, Placement } from './placement.ts'
import { protectedMode } from './registers.ts'
import { Structure, cString } from './structure.ts'

const XEN_ELFNOTE_PHYS32_ENTRY = 18
const START_MAGIC = 0x336ec578
const VERSION_WITH_MEMORY_MAP = 1
const START_INFO_SIZE = 56
const MODULE_SIZE = 32
const MAP_ENTRY_SIZE = 24

export const createPvh = (): BootProtocol<VcpuState> => ({
  load(image: BootImage, machine: BootMachine): BootState<VcpuState> {
    if (!image.kernel) throw badImage('kernel', 'file', 'not given', 'name one: boot.pvh.kernel: ./vmlinux')
    const reader = new ImageReader('kernel', image.kernel)
    if (!isElf(reader))
      throw reader.bad(
        'format',
        'not ELF',
        'PVH starts an ELF kernel: unpack the vmlinux from the bzImage (nonroot image does), or boot it by linux',
      )
    const elf = readElf(reader)
    const entry = entryOf(elf, reader)
    const placement = new Placement(machine)
    placement.putElf(elf)

    const modules = [
      ...(image.initrd?.length ? [{ content: image.initrd, cmdline: '' }] : []),
      ...(image.modules ?? []),
    ].map(({ content, cmdline }, index) => ({
      start: placement.high(index === 0 && image.initrd ? 'initrd' : `module ${index}`, content, FOUR_GIBIBYTES),
      length: content.length,
      cmdline: cmdline === '' ? 0 : placement.low(`command line of module ${index}`, cString(cmdline)),
    }))
    const list = new Structure(modules.length * MODULE_SIZE)
    modules.forEach(({ start, length, cmdline }, index) => {
      const at = index * MODULE_SIZE
      list
        .u64(at, start)
        .u64(at + 8, length)
        .u64(at + 16, cmdline)
    })
    const map = memoryMap(machine)
    const mapTable = new Structure(map.length * MAP_ENTRY_SIZE)
    map.forEach(({ start, length, type }, index) => {
      const at = index * MAP_ENTRY_SIZE
      mapTable
        .u64(at, start)
        .u64(at + 8, length)
        .u32(at + 16, type)
    })

    const info = new Structure(START_INFO_SIZE)
      .u32(0, START_MAGIC)
      .u32(4, VERSION_WITH_MEMORY_MAP)
      .u32(12, modules.length)
      .u64(16, modules.length > 0 ? placement.low('module list', list.bytes) : 0)
      .u64(24, placement.low('command line', cString(image.cmdline ?? '')))
      .u64(32, placeFirmwareTables(placement, machine) ?? 0)
      .u64(40, placement.low('memory map', mapTable.bytes))
      .u32(48, map.length)
    const rbx = BigInt(placement.low('start info', info.bytes))
    return { registers: protectedMode(placement, { rip: BigInt(entry), rbx }), placed: placement.placed }
  },
})

function entryOf(elf: ElfImage, reader: ImageReader): number {
  const note = elf.notes.find(({ name, type }) => name === 'Xen' && type === XEN_ELFNOTE_PHYS32_ENTRY)
  if (!note || note.data.length < 4) {
    throw reader.bad(
      'note XEN_ELFNOTE_PHYS32_ENTRY',
      'not there',
      'the kernel takes no PVH boot (Linux: CONFIG_PVH): boot it by linux or multiboot',
    )
  }
  const entry = new DataView(note.data.buffer, note.data.byteOffset).getUint32(0, true)
  if (!elf.segments.some(({ physical, memorySize }) => entry >= physical && entry < physical + memorySize)) {
    throw reader.bad('note XEN_ELFNOTE_PHYS32_ENTRY', hex(entry), 'it is in no loadable segment: the file is corrupted')
  }
  return entry
}
