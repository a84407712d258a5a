/** ELF executables, 32 and 64 bit, x86: segments, entry and notes. Independent of the boot protocol. (System V ABI, "Object Files") */
import type { BootContent } from '@nonroot/contracts'
import { hex } from './errors.ts'
import type { ImageReader } from './image-reader.ts'

export interface ElfSegment {
  readonly physical: number
  readonly virtual: bigint
  readonly data: BootContent
  /** At least the data's length; the rest is zero. */
  readonly memorySize: number
}

export interface ElfImage {
  readonly bits: 32 | 64
  readonly entry: bigint
  /** In file order; those without memory are left out. */
  readonly segments: readonly ElfSegment[]
  readonly notes: readonly { readonly name: string; readonly type: number; readonly data: Uint8Array }[]
}

const MAGIC = 0x464c457f
const EM_386 = 3
const EM_X86_64 = 62
const ET_EXEC = 2
const ET_DYN = 3
const PT_LOAD = 1
const PT_NOTE = 4
const MOST_SEGMENTS = 256
const MOST_NOTES = 0x10000 // bytes of them; kernels have a few hundred

export const isElf = (reader: ImageReader): boolean => reader.length >= 4 && reader.u32(0, 'ELF magic') === MAGIC

export function readElf(reader: ImageReader): ElfImage {
  if (!isElf(reader)) throw reader.bad('ELF magic', hex(reader.u32(0, 'ELF magic')), 'give an ELF executable')
  const elfClass = reader.u8(4, 'EI_CLASS')
  if (elfClass !== 1 && elfClass !== 2)
    throw reader.bad('EI_CLASS', elfClass, 'it should be 1 (32 bits) or 2 (64 bits)')
  const wide = elfClass === 2
  if (reader.u8(5, 'EI_DATA') !== 1)
    throw reader.bad('EI_DATA', reader.u8(5, 'EI_DATA'), 'it should be 1 (little-endian)')
  const type = reader.u16(16, 'e_type')
  if (type !== ET_EXEC && type !== ET_DYN)
    throw reader.bad('e_type', type, 'it should be 2 (executable): give a linked kernel')
  const machine = reader.u16(18, 'e_machine')
  if (machine !== EM_386 && machine !== EM_X86_64)
    throw reader.bad('e_machine', machine, 'it should be 3 (80386) or 62 (x86-64)')
  const table = wide ? reader.u64(32, 'e_phoff') : reader.u32(28, 'e_phoff')
  const entrySize = reader.u16(wide ? 54 : 42, 'e_phentsize')
  const count = reader.u16(wide ? 56 : 44, 'e_phnum')
  if (entrySize !== (wide ? 56 : 32)) throw reader.bad('e_phentsize', entrySize, `it should be ${wide ? 56 : 32}`)
  if (count === 0) throw reader.bad('e_phnum', 0, 'it has nothing to load: give a linked kernel')
  if (count > MOST_SEGMENTS)
    throw reader.bad('e_phnum', count, `no kernel has more than ${MOST_SEGMENTS}: the file is corrupted`)

  const segments: ElfSegment[] = []
  const notes: ElfImage['notes'][number][] = []
  for (let index = 0; index < count; index++) {
    const at = table + index * entrySize
    const kind = reader.u32(at, `program header ${index}`)
    if (kind !== PT_LOAD && kind !== PT_NOTE) continue
    const field = (name: string, wideAt: number, narrowAt: number) =>
      wide
        ? reader.u64(at + wideAt, `${name} of segment ${index}`)
        : reader.u32(at + narrowAt, `${name} of segment ${index}`)
    const fileSize = field('p_filesz', 32, 16)
    const offset = field('p_offset', 8, 4)
    const data = reader.part(offset, fileSize, `data of segment ${index}`)
    if (kind === PT_NOTE) {
      notes.push(...readNotes(reader.bytes(offset, Math.min(fileSize, MOST_NOTES), `notes of segment ${index}`)))
      continue
    }
    const memorySize = field('p_memsz', 40, 20)
    if (memorySize < fileSize)
      throw reader.bad(`p_memsz of segment ${index}`, memorySize, `it should be at least p_filesz (${fileSize})`)
    if (memorySize === 0) continue
    const virtual = wide
      ? reader.u64Exact(at + 16, `p_vaddr of segment ${index}`)
      : BigInt(reader.u32(at + 8, `p_vaddr of segment ${index}`))
    segments.push({ physical: field('p_paddr', 24, 12), virtual, data, memorySize })
  }
  if (segments.length === 0)
    throw reader.bad('count of loadable segments', 0, 'it has nothing to load: give a linked kernel')
  const entry = wide ? reader.u64Exact(24, 'e_entry') : BigInt(reader.u32(24, 'e_entry'))
  return { bits: wide ? 64 : 32, entry, segments, notes }
}

/** Name and descriptor are each padded to four bytes. What does not fit ends the list: notes are advice. */
function readNotes(section: Uint8Array): ElfImage['notes'][number][] {
  const view = new DataView(section.buffer, section.byteOffset, section.byteLength)
  const notes: ElfImage['notes'][number][] = []
  const padded = (length: number) => Math.ceil(length / 4) * 4
  for (let at = 0; at + 12 <= section.length;) {
    const nameSize = view.getUint32(at, true)
    const dataSize = view.getUint32(at + 4, true)
    const dataAt = at + 12 + padded(nameSize)
    if (dataAt + dataSize > section.length) break
    const name = String.fromCharCode(...section.subarray(at + 12, at + 12 + Math.min(nameSize, 64))).replace(
      /\0.*$/s,
      '',
    )
    notes.push({ name, type: view.getUint32(at + 8, true), data: section.subarray(dataAt, dataAt + dataSize) })
    at = dataAt + padded(dataSize)
  }
  return notes
}

/** Entry as a physical address: kernels linked high name it virtually. */
export function physicalEntry(elf: ElfImage, reader: ImageReader): number {
  const home = (inside: (segment: ElfSegment) => boolean) => elf.segments.find(inside)
  const { entry } = elf
  const physical = home(
    ({ physical, memorySize }) => entry >= BigInt(physical) && entry < BigInt(physical + memorySize),
  )
  if (physical) return Number(entry)
  const virtual = home(({ virtual, memorySize }) => entry >= virtual && entry < virtual + BigInt(memorySize))
  if (!virtual)
    throw reader.bad('e_entry', `0x${entry.toString(16)}`, 'it is in no loadable segment: the file is corrupted')
  return Number(entry - virtual.virtual) + virtual.physical
}
