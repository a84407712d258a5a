/**
 * Xen's paravirtual start of day: builds an address space for the kernel and enters it in 64-bit mode with a page of start information.
 * (Xen, "public/xen.h", "Start-of-day memory layout", struct start_info; "public/elfnote.h")
 */
import { invariant } from '@nonroot/contracts'
import type {
  BootContent,
  BootImage,
  BootMachine,
  BootProtocol,
  BootState,
  MemoryPiece,
  ParavirtualMachine,
  ParavirtualMemory,
  VcpuState,
} from '@nonroot/contracts'
import { readElf, isElf, type ElfImage } from './elf.ts'
import { badImage, hex, noRoom } from './errors.ts'
import { ImageReader } from './image-reader.ts'
import { MEBIBYTE } from './placement.ts'
import { Structure } from './structure.ts'
import { InitialTables, tablesFor } from './xen-tables.ts'

const PAGE = 4096
const NOTE = { entry: 1, virtualBase: 3, physicalOffset: 4, xenVersion: 5, initialMap: 15, unmappedModule: 16 } as const
const START_INFO = {
  pages: 32,
  sharedInfo: 40,
  flags: 48,
  storeFrame: 56,
  storePort: 64,
  consoleFrame: 72,
  consolePort: 80,
  tables: 88,
  tableFrames: 96,
  map: 104,
  module: 112,
  moduleLength: 120,
  commandLine: 128,
  mapFrame: 1152,
  mapFrames: 1160,
  bytes: 1168,
} as const
const COMMAND_LINE = 1024
const FLAG = { moduleFrame: 8, mapForTools: 16 } as const
/** What is mapped beyond the last thing placed, and what its end is rounded to. */
const SPARE = 512 * 1024
const ROUND = 4 * MEBIBYTE

interface Notes {
  readonly entry: bigint
  readonly base: bigint
  readonly offset: bigint
  /** Where the kernel wants its list of frames. Undefined: in the mapping with all else. */
  readonly map: bigint | undefined
  readonly unmappedModule: boolean
}

export const createXenPv = (): BootProtocol => ({
  load(image: BootImage, machine: BootMachine): BootState<VcpuState> {
    if (!image.kernel) throw badImage('kernel', 'file', 'not given', 'name one: boot.xen-pv.kernel: ./vmlinux')
    if (!machine.paravirtual) {
      throw badImage(
        'kernel',
        'boot protocol',
        'xen-pv',
        'it starts paravirtual guests: take stacks/xen-like.yaml, or boot by linux or pvh',
      )
    }
    const reader = new ImageReader('kernel', image.kernel)
    if (!isElf(reader))
      throw reader.bad('format', 'not ELF', 'give the vmlinux out of the bzImage: nonroot image unpacks it')
    const elf = readElf(reader)
    return build(image, elf, notesOf(elf, reader), machine.paravirtual)
  },
})

function notesOf(elf: ElfImage, reader: ImageReader): Notes {
  const note = (type: number): bigint | undefined => {
    const found = elf.notes.find((one) => one.name === 'Xen' && one.type === type)?.data
    if (!found || found.length < 4) return undefined
    const view = new DataView(found.buffer, found.byteOffset, found.length)
    return found.length >= 8 ? view.getBigUint64(0, true) : BigInt(view.getUint32(0, true))
  }
  const version = elf.notes.find((one) => one.name === 'Xen' && one.type === NOTE.xenVersion)
  const text = version && String.fromCharCode(...version.data).replace(/\0.*$/s, '')
  if (text !== 'xen-3.0' || elf.bits !== 64) {
    throw reader.bad(
      'note XEN_ELFNOTE_XEN_VERSION',
      text ?? 'not there',
      'the kernel takes no paravirtual start (Linux: CONFIG_XEN_PV): boot it by linux or pvh',
    )
  }
  const base = note(NOTE.virtualBase) ?? 0n
  return {
    entry: note(NOTE.entry) ?? elf.entry,
    base,
    offset: note(NOTE.physicalOffset) ?? (note(NOTE.virtualBase) === undefined ? 0n : base),
    map: note(NOTE.initialMap),
    unmappedModule: (note(NOTE.unmappedModule) ?? 0n) !== 0n,
  }
}

/** Frames in order, from the kernel up. */
class Layout {
  readonly placed: { what: string; start: number; length: number }[] = []
  next: number
  constructor(first: number) {
    this.next = first
  }
  take(what: string, bytes: number): number {
    const frame = this.next
    const frames = Math.ceil(bytes / PAGE)
    this.next += frames
    this.placed.push({ what, start: frame * PAGE, length: frames * PAGE })
    return frame
  }
}

function build(image: BootImage, elf: ElfImage, notes: Notes, machine: ParavirtualMachine): BootState<VcpuState> {
  const memory = machine.begin()
  const pages = memory.machineFrames.length
  const end = Math.max(...elf.segments.map(({ physical, memorySize }) => physical - Number(notes.offset) + memorySize))
  const layout = new Layout(Math.ceil(end / PAGE))
  const segments = elf.segments.map((segment) => ({ ...segment, at: segment.physical - Number(notes.offset) }))
  for (const { at, memorySize } of segments) {
    if (at < 0)
      throw badImage('kernel', 'p_paddr', hex(at), 'it lies below XEN_ELFNOTE_PADDR_OFFSET: the file is corrupted')
    layout.placed.push({ what: 'kernel', start: at, length: memorySize })
  }
  const initrd = image.initrd?.length ? image.initrd : undefined
  const isMapped = initrd !== undefined && !notes.unmappedModule
  let module = isMapped ? layout.take('initrd', initrd.length) : 0
  // A list that the kernel wants elsewhere comes last, with tables of its own.
  const ownMap = notes.map !== undefined && notes.map < notes.base ? notes.map : undefined
  const list = ownMap === undefined ? layout.take('frame list', pages * 8) : 0
  const startInfo = layout.take('start info', PAGE)
  const store = layout.take('store ring', PAGE)
  const console = layout.take('console ring', PAGE)

  const firstTable = layout.next
  const mapped = mappedFrames(notes.base, firstTable)
  const tableFrames = tablesFor(notes.base, mapped) + 1
  layout.take('page tables', tableFrames * PAGE)
  const stack = layout.take('boot stack', PAGE)
  layout.next = mapped
  if (initrd && !isMapped) module = layout.take('initrd', initrd.length)
  const listFrames = Math.ceil((pages * 8) / PAGE)
  const listTables = ownMap === undefined ? 0 : tablesFor(ownMap, listFrames)
  const ownList = ownMap === undefined ? list : layout.take('frame list', (listFrames + listTables) * PAGE)
  if (layout.next > pages) {
    throw noRoom(
      'the kernel',
      `${Math.ceil((layout.next * PAGE) / MEBIBYTE)} MiB`,
      'give the machine more: machine.memory: 256 MiB',
    )
  }

  const put = (frame: number, content: BootContent, size = content.length): void =>
    write(memory, frame * PAGE, content, size)
  for (const { at, data, memorySize } of segments) write(memory, at, data, memorySize)
  if (initrd) put(module, initrd)
  put(ownList, frameList(memory.machineFrames))

  const tables = new InitialTables(memory, firstTable, tableFrames)
  tables.map(notes.base, 0, mapped, (frame) => frame < firstTable || frame >= firstTable + tableFrames)
  if (ownMap !== undefined) tables.mapAside(ownMap, ownList, listFrames, ownList + listFrames, listTables)
  tables.write()

  const va = (frame: number): bigint => notes.base + BigInt(frame) * BigInt(PAGE)
  const machineOf = (frame: number): bigint => BigInt(memory.machineFrames[frame]!)
  const info = new Structure(START_INFO.bytes)
  info.bytes.set(ascii(memory.magic), 0)
  info
    .u64(START_INFO.pages, pages)
    .u64(START_INFO.sharedInfo, memory.sharedInfo)
    .u32(START_INFO.flags, FLAG.mapForTools | (initrd && !isMapped ? FLAG.moduleFrame : 0))
    .u64(START_INFO.storeFrame, Number(machineOf(store)))
    .u32(START_INFO.storePort, memory.storePort)
    .u64(START_INFO.consoleFrame, Number(machineOf(console)))
    .u32(START_INFO.consolePort, memory.consolePort)
    .u64(START_INFO.tableFrames, tableFrames)
    .u64(START_INFO.moduleLength, initrd?.length ?? 0)
    .u64(START_INFO.mapFrame, ownMap === undefined ? 0 : ownList)
    .u64(START_INFO.mapFrames, ownMap === undefined ? 0 : listFrames + listTables)
  const view = new DataView(info.bytes.buffer, info.bytes.byteOffset, info.bytes.length)
  view.setBigUint64(START_INFO.tables, va(firstTable), true)
  view.setBigUint64(START_INFO.map, ownMap ?? va(list), true)
  view.setBigUint64(START_INFO.module, !initrd ? 0n : isMapped ? va(module) : BigInt(module), true)
  const cmdline = ascii(image.cmdline ?? '')
  if (cmdline.length >= COMMAND_LINE)
    throw badImage(
      'command line',
      'length',
      cmdline.length,
      `a paravirtual guest takes at most ${COMMAND_LINE - 1} bytes`,
    )
  info.bytes.set(cmdline, START_INFO.commandLine)
  put(startInfo, info.bytes, PAGE)
  put(store, new Uint8Array(), PAGE)
  put(console, new Uint8Array(), PAGE)

  machine.start({
    root: memory.machineFrames[firstTable]!,
    store: memory.machineFrames[store]!,
    console: memory.machineFrames[console]!,
  })
  return {
    registers: {
      rip: notes.entry,
      rsp: va(stack + 1),
      rsi: va(startInfo),
      rflags: 0x202n,
      cr3: machineOf(firstTable) * BigInt(PAGE),
    },
    placed: layout.placed,
  }
}

/** Where the mapping ends: behind its own tables, whose number depends on it. */
function mappedFrames(base: bigint, firstTable: number): number {
  let frames = firstTable
  for (;;) {
    const needed = (firstTable + tablesFor(base, frames) + 2) * PAGE + SPARE
    const rounded = Math.ceil(needed / ROUND) * ROUND
    if (rounded / PAGE <= frames) return frames
    frames = rounded / PAGE
  }
}

function frameList(frames: Readonly<Uint32Array>): Uint8Array {
  const list = new BigUint64Array(frames.length)
  for (let n = 0; n < frames.length; n++) list[n] = BigInt(frames[n]!)
  return new Uint8Array(list.buffer)
}

/** Bytes at a byte offset into the guest's own frames, zeroes after them up to `size`. Neighbouring frames may lie apart. */
function write(memory: ParavirtualMemory, at: number, content: BootContent, size: number): void {
  const pieces = piecesOf(memory, at, content.length)
  if (content instanceof Uint8Array) {
    let done = 0
    for (const { address, length } of pieces) {
      invariant(
        memory.guestMemory.writeBytes(address, content.subarray(done, done + length)),
        'the guest has RAM there',
      )
      done += length
    }
  } else {
    const lease = memory.guestMemory.lease(pieces, 'write')
    invariant(lease, 'the guest has RAM there')
    content.readInto(0, lease.views, () => lease.end())
  }
  for (const { address, length } of piecesOf(memory, at + content.length, size - content.length))
    invariant(memory.guestMemory.fill(address, length, 0), 'the guest has RAM there')
}

function piecesOf(memory: ParavirtualMemory, at: number, length: number): MemoryPiece[] {
  const pieces: { address: number; length: number }[] = []
  for (let done = 0; done < length;) {
    const offset = (at + done) % PAGE
    const size = Math.min(PAGE - offset, length - done)
    const frame = (at + done - offset) / PAGE
    if (frame >= memory.machineFrames.length)
      throw noRoom('the kernel', hex(at + length), 'give the machine more: machine.memory: 256 MiB')
    const address = memory.addressOf(frame) + offset
    const last = pieces.at(-1)
    if (last && last.address + last.length === address) last.length += size
    else pieces.push({ address, length: size })
    done += size
  }
  return pieces
}

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)
