/** The .modinfo section of a Linux kernel module (.ko): name, depends, softdep, alias. Reads only the parts of ELF64 that this needs. */
import { type Bytes, dataView, decodeCString, decodeText, startsWith } from './bytes.ts'
import { invalidImage } from './errors.ts'

export interface ModuleInfo {
  /** With underscores, as lsmod shows it. */
  readonly name: string
  readonly depends: readonly string[]
  /** Modules to be loaded before, where they exist ("softdep=pre: ..."). */
  readonly softBefore: readonly string[]
  readonly aliases: readonly string[]
}

/** Names in file names use '-' or '_' alike; the kernel uses '_'. */
export const moduleName = (name: string): string =>
  name
    .replace(/^.*\//, '')
    .replace(/\.ko(\.(xz|gz|zst))?$/, '')
    .replaceAll('-', '_')

const SECTION_HEADER = 64

/** Bytes of one section of an ELF64 little-endian file, or undefined where it has none. */
function elfSection(elf: Bytes, wanted: string, file: string): Bytes | undefined {
  const bad = (field: string, value: unknown) =>
    invalidImage(file, field, String(value), 'the module is truncated or corrupted')
  if (!startsWith(elf, [0x7f, 0x45, 0x4c, 0x46, 2, 1]) || elf.length < 64)
    throw bad('ELF header', 'not ELF64 little-endian')
  const view = dataView(elf)
  const table = Number(view.getBigUint64(0x28, true))
  const count = view.getUint16(0x3c, true)
  const names = view.getUint16(0x3e, true)
  if (
    view.getUint16(0x3a, true) !== SECTION_HEADER ||
    !(table + count * SECTION_HEADER <= elf.length) ||
    names >= count
  ) {
    throw bad('ELF section table', `${count} at ${table}`)
  }
  const section = (index: number) => {
    const at = table + index * SECTION_HEADER
    const start = Number(view.getBigUint64(at + 0x18, true))
    const size = Number(view.getBigUint64(at + 0x20, true))
    return { name: view.getUint32(at, true), start, size, kind: view.getUint32(at + 4, true) }
  }
  const strings = section(names)
  for (let index = 0; index < count; index++) {
    const { name, start, size, kind } = section(index)
    const NOBITS = 8
    if (kind === NOBITS || decodeCString(elf.subarray(strings.start + name, strings.start + name + 64)) !== wanted)
      continue
    if (!(start + size <= elf.length)) throw bad(`ELF section ${wanted}`, `${size} bytes at ${start}`)
    return elf.subarray(start, start + size)
  }
  return undefined
}

export function readModuleInfo(elf: Bytes, file: string): ModuleInfo {
  const section = elfSection(elf, '.modinfo', file)
  const values = (key: string): string[] =>
    section === undefined
      ? []
      : decodeText(section)
          .split('\0')
          .filter((entry) => entry.startsWith(`${key}=`))
          .map((entry) => entry.slice(key.length + 1))
  const words = (text: string, separator: RegExp) => text.split(separator).filter((word) => word !== '')
  return {
    name: values('name')[0] ?? moduleName(file),
    depends: values('depends')
      .flatMap((list) => words(list, /,/))
      .map(moduleName),
    softBefore: values('softdep')
      .flatMap((list) => words(/\bpre:([^:]*?)(?:\s+post:.*)?$/.exec(list)?.[1] ?? '', /\s+/))
      .map(moduleName),
    aliases: values('alias'),
  }
}
