/** Tar archives read as a stream: ustar, pax extended headers and GNU long names. Reads only; knows no compression. */
import { type Bytes, alignUp, concatBytes, decodeCString, decodeText } from './bytes.ts'
import { invalidImage } from './errors.ts'

export type TarKind = 'file' | 'hardLink' | 'symbolicLink' | 'characterDevice' | 'blockDevice' | 'directory' | 'fifo'

export interface TarEntry {
  readonly kind: TarKind
  /** Without a leading "./" or "/", without a trailing "/"; "" for the root itself. */
  readonly path: string
  /** Permission bits alone. */
  readonly mode: number
  readonly size: number
  readonly linkTarget: string
  readonly deviceMajor: number
  readonly deviceMinor: number
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

/** Reads exact lengths from chunks of any length, holding no more than it was asked for. */
class ChunkReader {
  private readonly iterator: AsyncIterator<Bytes> | Iterator<Bytes>
  private pending: Bytes = new Uint8Array(0)

  constructor(chunks: AsyncIterable<Bytes> | Iterable<Bytes>) {
    this.iterator = Symbol.asyncIterator in chunks ? chunks[Symbol.asyncIterator]() : chunks[Symbol.iterator]()
  }

  /** Fewer bytes than asked for mean the end of the stream. */
  async read(length: number): Promise<Bytes> {
    const parts: Bytes[] = []
    for (let missing = length; missing > 0;) {
      if (this.pending.length === 0 && !(await this.refill())) break
      const part = this.pending.subarray(0, missing)
      parts.push(part)
      this.pending = this.pending.subarray(part.length)
      missing -= part.length
    }
    return parts.length === 1 ? parts[0]! : concatBytes(parts)
  }

  async skip(length: number): Promise<boolean> {
    while (length > 0) {
      if (this.pending.length === 0 && !(await this.refill())) return false
      const step = Math.min(length, this.pending.length)
      this.pending = this.pending.subarray(step)
      length -= step
    }
    return true
  }

  async close(): Promise<void> {
    await this.iterator.return?.()
  }

  private async refill(): Promise<boolean> {
    const next = await this.iterator.next()
    if (next.done === true) return false
    this.pending = next.value
    return true
  }
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

/** "LENGTH KEY=VALUE\n" records. (pax(1), "pax Extended Header") */
function parsePax(body: Bytes): Map<string, string> {
  const records = new Map<string, string>()
  for (let at = 0; at < body.length;) {
    const space = body.indexOf(0x20, at)
    const length = space < 0 ? NaN : Number(decodeText(body.subarray(at, space)))
    if (!(length > space - at) || at + length > body.length) break
    const record = decodeText(body.subarray(space + 1, at + length - 1))
    const equals = record.indexOf('=')
    if (equals > 0) records.set(record.slice(0, equals), record.slice(equals + 1))
    at += length
  }
  return records
}

const normalise = (path: string): string =>
  path
    .split('/')
    .filter((part) => part !== '' && part !== '.')
    .join('/')

/**
 * Entries in archive order. Data is read only for regular files that `wanted` accepts; others come with empty data. Paths that
 * climb out of the archive ("..") are an error, since no distribution package has them.
 */
export async function* readTar(
  chunks: AsyncIterable<Bytes> | Iterable<Bytes>,
  wanted: (entry: TarEntry) => boolean = () => true,
  file = 'tar archive',
): AsyncGenerator<TarFile> {
  const reader = new ChunkReader(chunks)
  let longName: string | undefined
  let longLink: string | undefined
  let pax = new Map<string, string>()
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
      let size = octal(header, 124, 12, 'size', file)
      if (type === 'L' || type === 'K' || type === 'x' || type === 'g') {
        if (size > LONGEST_HEADER)
          throw invalidImage(file, `tar extended header size`, String(size), `at most ${LONGEST_HEADER} is sane`)
        const body = await reader.read(size)
        if (body.length < size || !(await reader.skip(alignUp(size, BLOCK) - size)))
          throw truncated('tar extended header')
        if (type === 'L') longName = decodeCString(body)
        else if (type === 'K') longLink = decodeCString(body)
        else if (type === 'x') pax = parsePax(body)
        continue
      }
      const prefix =
        decodeText(header.subarray(257, 262)) === 'ustar' && header[263] === 0x30
          ? decodeCString(header.subarray(345, 500))
          : ''
      const name = decodeCString(header.subarray(0, 100))
      const path = normalise(pax.get('path') ?? longName ?? (prefix === '' ? name : `${prefix}/${name}`))
      if (path.split('/').includes('..'))
        throw invalidImage(file, 'tar path', path, 'a package never climbs out of its root')
      const kind = KINDS[type]
      const paxSize = pax.get('size')
      if (paxSize !== undefined && /^\d{1,15}$/.test(paxSize)) size = Number(paxSize)
      const entry: TarEntry | undefined = kind && {
        kind,
        path,
        mode: octal(header, 100, 8, 'mode', file) & 0o7777,
        size: kind === 'file' ? size : 0,
        linkTarget: pax.get('linkpath') ?? longLink ?? decodeCString(header.subarray(157, 257)),
        deviceMajor: octal(header, 329, 8, 'device major', file),
        deviceMinor: octal(header, 337, 8, 'device minor', file),
      }
      longName = longLink = undefined
      pax = new Map()
      const isRead = entry?.kind === 'file' && wanted(entry)
      const data = isRead ? await reader.read(size) : new Uint8Array(0)
      if (isRead && data.length < size) throw truncated(`data of ${path}`)
      const rest = isRead ? alignUp(size, BLOCK) - size : alignUp(size, BLOCK)
      if (!(await reader.skip(rest))) throw truncated(`data of ${path}`)
      if (entry && (entry.kind !== 'file' || isRead)) yield { ...entry, data }
    }
  } finally {
    await reader.close()
  }
}
