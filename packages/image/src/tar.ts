/** Tar archives read as a stream: ustar, pax extended headers and GNU long names. Reads only; compression is handled elsewhere. */
import { type Bytes, alignUp, concatBytes, decodeCString, decodeText } from './bytes.ts'
import { ChunkReader, type Chunks } from './chunk-reader.ts'
import { invalidImage } from './errors.ts'

export type TarKind = 'file' | 'hardLink' | 'symbolicLink' | 'characterDevice' | 'blockDevice' | 'directory' | 'fifo'

export interface TarEntry {
  readonly kind: TarKind
  /** Without a leading "./" or "/", without a trailing "/"; "" for the root itself. */
  readonly path: string
  /** Permission bits alone. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Since 1970, in nanoseconds. */
  readonly modified: bigint
  readonly size: number
  readonly linkTarget: string
  readonly deviceMajor: number
  readonly deviceMinor: number
  /** Extended attributes by their whole names. */
  readonly attributes: ReadonlyMap<string, Bytes>
}

/** With its content as a stream, valid until the next entry is requested. */
export interface TarStreamEntry extends TarEntry {
  readonly content: AsyncIterable<Bytes>
}

export interface TarFile extends TarEntry {
  readonly data: Bytes
}

const BLOCK = 512
const LONGEST_HEADER = 1 << 20 // pax and long-name bodies; real ones are under a kilobyte
const KINDS: Readonly<Record<string, TarKind>> = {
  '0': 'file',
  '\0': 'file',
  '7': 'file',
  '1': 'hardLink',
  '2': 'symbolicLink',
  '3': 'characterDevice',
  '4': 'blockDevice',
  '5': 'directory',
  '6': 'fifo',
}

function octal(header: Bytes, at: number, length: number, field: string, file: string): number {
  const raw = header.subarray(at, at + length)
  if ((raw[0]! & 0x80) !== 0) {
    // GNU base-256, for what does not fit in octal digits
    let value = raw[0]! & 0x7f
    for (const byte of raw.subarray(1)) value = value * 256 + byte
    if (!Number.isSafeInteger(value))
      throw invalidImage(file, `tar ${field}`, String(value), 'the archive is corrupted: get it again')
    return value
  }
  const text = decodeCString(raw).trim()
  if (text !== '' && !/^[0-7]+$/.test(text))
    throw invalidImage(file, `tar ${field}`, text, 'it should be octal: get the archive again')
  return text === '' ? 0 : parseInt(text, 8)
}

/** The checksum is the sum of all header bytes with its own field taken as spaces. */
function checksumHolds(header: Bytes, stated: number): boolean {
  let sum = 0
  for (let i = 0; i < BLOCK; i++) sum += i >= 148 && i < 156 ? 0x20 : header[i]!
  return sum === stated
}

/** "LENGTH KEY=VALUE\n" records. Values of attributes are no text. (pax(1), "pax Extended Header") */
function parsePax(body: Bytes): Map<string, Bytes> {
  const records = new Map<string, Bytes>()
  for (let at = 0; at < body.length;) {
    const space = body.indexOf(0x20, at)
    const length = space < 0 ? NaN : Number(decodeText(body.subarray(at, space)))
    if (!(length > space - at) || at + length > body.length) break
    const record = body.subarray(space + 1, at + length - 1)
    const equals = record.indexOf(0x3d)
    if (equals > 0) records.set(decodeText(record.subarray(0, equals)), record.slice(equals + 1))
    at += length
  }
  return records
}

const normalise = (path: string): string =>
  path
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/')

const ATTRIBUTE = 'SCHILY.xattr.'

/** What a pax header says of the entry that follows, in place of what the entry says. */
class PaxHeader {
  private readonly records: ReadonlyMap<string, Bytes>
  private readonly file: string

  constructor(records: ReadonlyMap<string, Bytes>, file: string) {
    this.records = records
    this.file = file
  }

  text(key: string): string | undefined {
    const value = this.records.get(key)
    return value && decodeText(value)
  }

  number(key: string): number | undefined {
    const text = this.text(key)
    if (text === undefined) return undefined
    if (!/^\d{1,15}$/.test(text)) throw this.bad(key, text)
    return Number(text)
  }

  /** Decimal seconds, as precise as the archiver likes. */
  time(key: string): bigint | undefined {
    const text = this.text(key)
    if (text === undefined) return undefined
    const [, sign, seconds, fraction = ''] = /^(-?)(\d{1,12})(?:\.(\d*))?$/.exec(text) ?? []
    if (seconds === undefined) throw this.bad(key, text)
    const time = BigInt(seconds) * NANOSECONDS + BigInt(fraction.padEnd(9, '0').slice(0, 9))
    return sign ? -time : time
  }

  attributes(): ReadonlyMap<string, Bytes> {
    const found = new Map<string, Bytes>()
    for (const [key, value] of this.records)
      if (key.startsWith(ATTRIBUTE)) found.set(key.slice(ATTRIBUTE.length), value)
    return found
  }

  get sparse(): boolean {
    return [...this.records.keys()].some((key) => key.startsWith('GNU.sparse.'))
  }

  private bad(key: string, value: string): Error {
    return invalidImage(this.file, `tar pax ${key}`, value, 'the archive is corrupted: get it again')
  }
}

const NANOSECONDS = 1_000_000_000n
const GNU_SPARSE = 'S'

/** Entries in archive order. Paths that climb out of the archive ("..") are an error, since no root of a system has them. */
export async function* readTarStream(chunks: Chunks, file = 'tar archive'): AsyncGenerator<TarStreamEntry> {
  const reader = new ChunkReader(chunks)
  let longName: string | undefined
  let longLink: string | undefined
  let pax = new PaxHeader(new Map(), file)
  const truncated = (what: string) => invalidImage(file, what, 'end of file', 'the archive is truncated: get it again')
  try {
    for (;;) {
      const header = await reader.read(BLOCK)
      if (header.length === 0) return
      if (header.length < BLOCK) throw truncated('tar header')
      if (header.every((byte) => byte === 0)) {
        await reader.skip(Infinity) // to the end of the compressed stream, where its checksum is
        return
      }
      if (!checksumHolds(header, octal(header, 148, 8, 'checksum', file))) {
        throw invalidImage(
          file,
          'tar header checksum',
          decodeCString(header.subarray(148, 156)),
          'the archive is corrupted: get it again',
        )
      }
      const type = String.fromCharCode(header[156]!)
      const stated = octal(header, 124, 12, 'size', file)
      if (type === 'L' || type === 'K' || type === 'x' || type === 'g') {
        if (stated > LONGEST_HEADER)
          throw invalidImage(file, `tar extended header size`, String(stated), `at most ${LONGEST_HEADER} is sane`)
        const body = await reader.read(stated)
        if (body.length < stated || !(await reader.skip(alignUp(stated, BLOCK) - stated)))
          throw truncated('tar extended header')
        if (type === 'L') longName = decodeCString(body)
        else if (type === 'K') longLink = decodeCString(body)
        else if (type === 'x') pax = new PaxHeader(parsePax(body), file)
        continue
      }
      const prefix =
        decodeText(header.subarray(257, 262)) === 'ustar' && header[263] === 0x30
          ? decodeCString(header.subarray(345, 500))
          : ''
      const name = decodeCString(header.subarray(0, 100))
      const path = normalise(pax.text('path') ?? longName ?? (prefix === '' ? name : `${prefix}/${name}`))
      if (path.split('/').includes('..'))
        throw invalidImage(file, 'tar path', path, 'a package never climbs out of its root')
      if (type === GNU_SPARSE || pax.sparse)
        throw invalidImage(file, `tar entry ${path}`, 'a sparse file', 'make the archive without --sparse')
      const kind = KINDS[type]
      const linkTarget = pax.text('linkpath') ?? longLink ?? decodeCString(header.subarray(157, 257))
      const size = pax.number('size') ?? stated
      const entry: TarEntry | undefined = kind && {
        kind,
        path,
        mode: octal(header, 100, 8, 'mode', file) & 0o7777,
        uid: pax.number('uid') ?? octal(header, 108, 8, 'owner', file),
        gid: pax.number('gid') ?? octal(header, 116, 8, 'group', file),
        modified: pax.time('mtime') ?? BigInt(octal(header, 136, 12, 'time', file)) * NANOSECONDS,
        size: kind === 'file' ? size : 0,
        linkTarget: kind === 'hardLink' ? normalise(linkTarget) : linkTarget,
        deviceMajor: octal(header, 329, 8, 'device major', file),
        deviceMinor: octal(header, 337, 8, 'device minor', file),
        attributes: pax.attributes(),
      }
      longName = longLink = undefined
      pax = new PaxHeader(new Map(), file)
      // Data of an entry that is not a file is skipped.
      let left = size
      async function* content(): AsyncGenerator<Bytes> {
        while (left > 0) {
          const part = await reader.readSome(left)
          if (!part) throw truncated(`data of ${path}`)
          left -= part.length
          yield part
        }
      }
      if (entry) yield { ...entry, content: content() }
      if (!(await reader.skip(left + alignUp(size, BLOCK) - size))) throw truncated(`data of ${path}`)
    }
  } finally {
    await reader.close()
  }
}

/** Files, links, folders and devices with their data. Of regular files those that `wanted` accepts. */
export async function* readTar(
  chunks: Chunks,
  wanted: (entry: TarEntry) => boolean = () => true,
  file = 'tar archive',
): AsyncGenerator<TarFile> {
  for await (const { content, ...entry } of readTarStream(chunks, file)) {
    if (entry.kind !== 'file') yield { ...entry, data: new Uint8Array(0) }
    else if (wanted(entry)) yield { ...entry, data: await gather(content, entry.size) }
  }
}

async function gather(content: AsyncIterable<Bytes>, size: number): Promise<Bytes> {
  const parts: Bytes[] = []
  for await (const part of content) parts.push(part)
  return parts.length === 1 && parts[0]!.length === size ? parts[0]! : concatBytes(parts)
}
