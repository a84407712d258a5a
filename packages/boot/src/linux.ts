/**
 * Linux on x86: a bzImage by its 64-bit or 32-bit entry, or the ELF inside it, which need not decompress itself.
 * (Linux, "The Linux/x86 Boot Protocol")
 */
import type { BootContent, BootImage, BootMachine, BootProtocol, BootState, VcpuState } from '@nonroot/contracts'
import { placeFirmwareTables } from './bios/placing.ts'
import { isElf, physicalEntry, readElf } from './elf.ts'
import { badImage, hex, noRoom } from './errors.ts'
import { ImageReader } from './image-reader.ts'
import { type MapEntry, memoryMap } from './memory-map.ts'
import { FOUR_GIBIBYTES, MEBIBYTE, Placement } from './placement.ts'
import { longMode, protectedMode } from './registers.ts'
import { Structure, cString } from './structure.ts'

export interface LinuxOptions {
  /** `auto` takes the 64-bit entry where the kernel has one. */
  readonly entry: 'auto' | '64-bit' | '32-bit'
}

// Offsets in the boot sector, and so in struct boot_params ("zero page").
const FIELD = {
  screenInfo: 0x000,
  extMemK: 0x002,
  acpiRsdpAddr: 0x070,
  altMemK: 0x1e0,
  e820Entries: 0x1e8,
  setupSects: 0x1f1,
  sysSize: 0x1f4,
  bootFlag: 0x1fe,
  jump: 0x200,
  header: 0x202,
  version: 0x206,
  typeOfLoader: 0x210,
  loadFlags: 0x211,
  code32Start: 0x214,
  ramdiskImage: 0x218,
  ramdiskSize: 0x21c,
  heapEndPtr: 0x224,
  cmdLinePtr: 0x228,
  initrdAddrMax: 0x22c,
  kernelAlignment: 0x230,
  relocatableKernel: 0x234,
  xloadFlags: 0x236,
  cmdlineSize: 0x238,
  prefAddress: 0x258,
  initSize: 0x260,
  e820Table: 0x2d0,
} as const

const HEADER_MAGIC = 0x53726448 // "HdrS"
const BOOT_FLAG = 0xaa55
const LOADED_HIGH = 1
const CAN_USE_HEAP = 0x80
const XLF_KERNEL_64 = 1
const UNKNOWN_LOADER = 0xff
const E820_MOST = 128
const BOOT_PARAMS_SIZE = 4096
/** Where the boot protocol's older versions say nothing. */
const OLD_INITRD_ADDR_MAX = 0x37ffffff
const OLD_CMDLINE_SIZE = 255
/** What a kernel without a setup header (ELF) takes: Linux's own limits on x86-64. */
const ELF_LIMITS = { initrdAddrMax: 0x7fffffff, cmdlineSize: 2047 }

/** A kernel in memory, ready for its parameters. */
interface Loaded {
  /** The setup header, at its place in struct boot_params. */
  readonly parameters: Structure
  readonly entry: number
  readonly bits: 32 | 64
  readonly initrdAddrMax: number
  readonly cmdlineSize: number
}

export const createLinux = (options: LinuxOptions = { entry: 'auto' }): BootProtocol<VcpuState> => ({
  load(image: BootImage, machine: BootMachine): BootState<VcpuState> {
    if (!image.kernel) throw badImage('kernel', 'file', 'not given', 'name one: boot.linux.kernel: ./vmlinuz')
    const reader = new ImageReader('kernel', image.kernel)
    const placement = new Placement(machine)
    const loaded = isElf(reader) ? loadElf(reader, placement, options) : loadBzImage(reader, placement, options)
    const { parameters } = loaded
    placeCommandLine(placement, loaded, image.cmdline ?? '')
    if (image.initrd?.length) {
      const limit = Math.min(loaded.initrdAddrMax + 1, FOUR_GIBIBYTES)
      const start = placement.high('initrd', image.initrd, limit)
      parameters.u32(FIELD.ramdiskImage, start).u32(FIELD.ramdiskSize, image.initrd.length)
    }
    const rsdp = placeFirmwareTables(placement, machine)
    if (rsdp !== undefined) parameters.u64(FIELD.acpiRsdpAddr, rsdp)
    if (machine.platform.vga === true) describeTextMode(parameters)
    describeMemory(parameters, memoryMap(machine))
    const zeroPage = BigInt(placement.low('boot parameters', parameters.bytes, 4096))
    const enter = loaded.bits === 64 ? longMode : protectedMode
    const registers = enter(placement, { rip: BigInt(loaded.entry), rsi: zeroPage })
    return { registers, placed: placement.placed }
  },
})

function loadBzImage(reader: ImageReader, placement: Placement, options: LinuxOptions): Loaded {
  const bootFlag = reader.u16(FIELD.bootFlag, 'boot_flag')
  if (bootFlag !== BOOT_FLAG)
    throw reader.bad('boot_flag', hex(bootFlag), 'it should be 0xaa55: give a Linux bzImage (vmlinuz) or ELF (vmlinux)')
  const magic = reader.u32(FIELD.header, 'setup header magic')
  if (magic !== HEADER_MAGIC)
    throw reader.bad('setup header magic', hex(magic), 'it should be "HdrS": give a Linux bzImage (vmlinuz)')
  const version = reader.u16(FIELD.version, 'boot protocol version')
  if (version < 0x200)
    throw reader.bad('boot protocol version', hex(version), 'versions from 2.00 (0x200) on are supported')
  const loadFlags = reader.u8(FIELD.loadFlags, 'loadflags')
  if ((loadFlags & LOADED_HIGH) === 0)
    throw reader.bad('loadflags', hex(loadFlags), 'zImages are not supported: give a bzImage')

  // Without protected-mode code in its header, what the file has runs in real mode and calls a BIOS: iPXE, MEMDISK.
  if (reader.u32(FIELD.code32Start, 'code32_start') === 0 || reader.u32(FIELD.sysSize, 'syssize') === 0)
    throw reader.bad(
      'entry',
      '16-bit only',
      'it needs a BIOS, which is not there: boot it from a disk behind one (boot.firmware.image: /usr/share/seabios/bios-256k.bin)',
    )

  const setupSize = ((reader.u8(FIELD.setupSects, 'setup_sects') || 4) + 1) * 512
  const code = reader.part(setupSize, reader.length - setupSize, 'protected-mode kernel')
  const stated = reader.u32(FIELD.sysSize, 'syssize') * 16
  // A signature may follow; the last paragraph may be cut short.
  if (code.length + 15 < stated)
    throw reader.bad('syssize', stated, `${code.length} bytes are there: the file is truncated`)

  const has64 = version >= 0x20c && (reader.u16(FIELD.xloadFlags, 'xloadflags') & XLF_KERNEL_64) !== 0
  if (options.entry === '64-bit' && !has64)
    throw reader.bad('xloadflags', 'without a 64-bit entry', 'give a 64-bit kernel, or entry: 32-bit')
  const bits = has64 && options.entry !== '32-bit' ? 64 : 32
  const start = placeCode(reader, placement, version, code)

  const headerEnd = FIELD.header + reader.u8(FIELD.jump + 1, 'length of the setup header')
  const header = reader.bytes(
    FIELD.setupSects,
    Math.max(headerEnd, FIELD.heapEndPtr + 4) - FIELD.setupSects,
    'setup header',
  )
  const parameters = new Structure(BOOT_PARAMS_SIZE)
    .put(FIELD.setupSects, header)
    .u8(FIELD.typeOfLoader, UNKNOWN_LOADER)
    .u8(FIELD.loadFlags, loadFlags | CAN_USE_HEAP)
    .u16(FIELD.heapEndPtr, 0xfe00)
    .u32(FIELD.code32Start, start)
  return {
    parameters,
    bits,
    entry: bits === 64 ? start + 0x200 : start,
    initrdAddrMax: version >= 0x203 ? reader.u32(FIELD.initrdAddrMax, 'initrd_addr_max') : OLD_INITRD_ADDR_MAX,
    cmdlineSize: version >= 0x206 ? reader.u32(FIELD.cmdlineSize, 'cmdline_size') : OLD_CMDLINE_SIZE,
  }
}

/** Where the kernel would like to be if there is room, else as low as it may; with the room it needs before it reads the memory map. */
function placeCode(reader: ImageReader, placement: Placement, version: number, code: BootContent): number {
  const initSize = version >= 0x20a ? Math.max(reader.u32(FIELD.initSize, 'init_size'), code.length) : code.length
  const relocatable = version >= 0x205 && reader.u8(FIELD.relocatableKernel, 'relocatable_kernel') !== 0
  const candidates: number[] = []
  if (relocatable) {
    const alignment = reader.u32(FIELD.kernelAlignment, 'kernel_alignment')
    if (alignment < 0x1000 || (alignment & (alignment - 1)) !== 0 || alignment > 0x40000000) {
      throw reader.bad('kernel_alignment', hex(alignment), 'it should be a power of two: the file is corrupted')
    }
    if (version >= 0x20a) candidates.push(reader.u64(FIELD.prefAddress, 'pref_address'))
    candidates.push(Math.ceil(MEBIBYTE / alignment) * alignment)
  } else candidates.push(MEBIBYTE)
  const start = candidates.find(
    (candidate) => candidate + initSize <= FOUR_GIBIBYTES && placement.isFree(candidate, initSize),
  )
  if (start === undefined) {
    const needed = Math.ceil((Math.min(...candidates) + initSize) / MEBIBYTE) + 16
    throw noRoom(
      'kernel',
      `${Math.ceil(initSize / MEBIBYTE)} MiB at ${candidates.map(hex).join(' or ')}`,
      `give more: machine.memory: ${needed} MiB`,
    )
  }
  placement.put('kernel', start, code, initSize)
  return start
}

/** As the bzImage's own loader would leave it: segments at their physical addresses, 64-bit entry. */
function loadElf(reader: ImageReader, placement: Placement, options: LinuxOptions): Loaded {
  const elf = readElf(reader)
  if (elf.bits === 32 || options.entry === '32-bit') {
    throw reader.bad(
      'ELF class',
      `${elf.bits} bits`,
      'a vmlinux starts at its 64-bit entry here: give a bzImage, or boot it by pvh',
    )
  }
  placement.putElf(elf)
  const parameters = new Structure(BOOT_PARAMS_SIZE)
    .u16(FIELD.bootFlag, BOOT_FLAG)
    .u32(FIELD.header, HEADER_MAGIC)
    .u16(FIELD.version, 0x20c)
    .u8(FIELD.typeOfLoader, UNKNOWN_LOADER)
    .u8(FIELD.loadFlags, LOADED_HIGH | CAN_USE_HEAP)
    .u32(FIELD.kernelAlignment, 0x1000000)
    .u32(FIELD.initrdAddrMax, ELF_LIMITS.initrdAddrMax)
    .u32(FIELD.cmdlineSize, ELF_LIMITS.cmdlineSize)
  return { parameters, entry: physicalEntry(elf, reader), bits: 64, ...ELF_LIMITS }
}

function placeCommandLine(placement: Placement, { parameters, cmdlineSize }: Loaded, cmdline: string): void {
  const text = cString(cmdline)
  if (text.length - 1 > cmdlineSize) {
    throw badImage(
      'kernel',
      'command line',
      `${text.length - 1} bytes long`,
      `this kernel takes ${cmdlineSize}: make boot.linux.cmdline shorter`,
    )
  }
  parameters.u32(FIELD.cmdLinePtr, placement.low('command line', text))
}

function describeMemory(parameters: Structure, map: readonly MapEntry[]): void {
  const entries = map.slice(0, E820_MOST)
  parameters.u8(FIELD.e820Entries, entries.length)
  entries.forEach(({ start, length, type }, index) => {
    const at = FIELD.e820Table + index * 20
    parameters
      .u64(at, start)
      .u64(at + 8, length)
      .u32(at + 16, type)
  })
  // What kernels knew before e820: KiB above 1 MiB.
  const above = map.find(({ start, type }) => start === MEBIBYTE && type === 1)
  const kibibytes = (above?.length ?? 0) / 1024
  parameters.u32(FIELD.altMemK, kibibytes).u16(FIELD.extMemK, Math.min(kibibytes, 0xffff))
}

/** VGA text mode 3, as firmware leaves it. */
function describeTextMode(parameters: Structure): void {
  const screen = FIELD.screenInfo
  parameters
    .u8(screen + 0x06, 3)
    .u8(screen + 0x07, 80)
    .u8(screen + 0x0e, 25)
    .u8(screen + 0x0f, 1)
    .u16(screen + 0x10, 16)
}
