/** Detects and undoes compression. gzip and xz are built in; zstd is the host's, which has it natively. */
import { NonrootError } from '@nonroot/contracts'
import xz from 'xz-decompress' // CommonJS: no named exports
import { type Bytes, concatBytes, startsWith } from './bytes.ts'
import { ChunkReader, type Chunks } from './chunk-reader.ts'
import { invalidImage } from './errors.ts'
import { LZ4_LEGACY_MAGIC, decompressLz4 } from './lz4.ts'
import { hasBranchFilter, withoutBranchFilter } from './xz-branch.ts'

export type Compression = 'none' | 'gzip' | 'xz' | 'zstd' | 'lz4'

/** What the host adds. `zstd` takes a whole frame and gives its content. */
export interface Decompressors {
  readonly zstd?: (bytes: Bytes) => Promise<Bytes> | Bytes
}

const MAGICS: readonly { compression: Compression; magic: readonly number[] }[] = [
  { compression: 'gzip', magic: [0x1f, 0x8b] },
  { compression: 'xz', magic: [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0x00] },
  { compression: 'zstd', magic: [0x28, 0xb5, 0x2f, 0xfd] },
  { compression: 'lz4', magic: LZ4_LEGACY_MAGIC },
]

export const compressionOf = (bytes: Bytes): Compression =>
  MAGICS.find(({ magic }) => startsWith(bytes, magic))?.compression ?? 'none'

const CHUNK = 1 << 16 // what one step of the decoder takes in

function* pieces(bytes: Bytes): Generator<Bytes> {
  for (let at = 0; at < bytes.length; at += CHUNK) yield bytes.subarray(at, at + CHUNK)
}

function streamOf(chunks: Chunks): ReadableStream<Uint8Array<ArrayBuffer>> {
  const iterator = Symbol.asyncIterator in chunks ? chunks[Symbol.asyncIterator]() : chunks[Symbol.iterator]()
  return new ReadableStream({
    async pull(controller) {
      const next = await iterator.next()
      if (next.done === true) controller.close()
      // A copy: the source may use its memory again.
      else controller.enqueue(next.value.slice() as Uint8Array<ArrayBuffer>)
    },
    async cancel() {
      await iterator.return?.()
    },
  })
}

/** Chunks of a stream. Where the consumer stops early the stream is cancelled, else xz's one context would stay taken. */
async function* chunksOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<Bytes> {
  const reader = stream.getReader()
  let ended = false
  try {
    for (;;) {
      const { done, value } = await reader.read()
      ended = done
      if (done) return
      if (value.length > 0) yield value
    }
  } finally {
    // xz-decompress fails to cancel what has just ended by itself: nothing is lost then.
    if (!ended) await reader.cancel().catch(() => {})
  }
}

async function decompressBranches(bytes: Bytes, file: string): Promise<Bytes> {
  const { stream, finish } = withoutBranchFilter(bytes, file)
  const parts: Bytes[] = []
  for await (const chunk of chunksOf(new xz.XzReadableStream(streamOf(pieces(stream))))) parts.push(chunk)
  return finish(concatBytes(parts))
}

/**
 * Content in chunks, so that an archive of hundreds of megabytes is never whole in memory. `file` names it in errors. One xz stream
 * at a time can be open (xz-decompress queues the others): finish one before starting what is inside it.
 */
export async function* decompressChunks(
  bytes: Bytes,
  decompressors: Decompressors,
  file: string,
): AsyncGenerator<Bytes> {
  yield* named(undo(bytes, decompressors, file), file, compressionOf(bytes))
}

async function* undo(bytes: Bytes, decompressors: Decompressors, file: string): AsyncGenerator<Bytes> {
  const compression = compressionOf(bytes)
  if (compression === 'none') yield bytes
  else if (compression === 'gzip') yield* chunksOf(streamOf(pieces(bytes)).pipeThrough(new DecompressionStream('gzip')))
  else if (compression === 'xz' && hasBranchFilter(bytes)) yield await decompressBranches(bytes, file)
  else if (compression === 'xz') yield* chunksOf(new xz.XzReadableStream(streamOf(pieces(bytes))))
  else if (compression === 'lz4') yield decompressLz4(bytes, file)
  else if (decompressors.zstd) yield await decompressors.zstd(bytes)
  else throw invalidImage(file, 'compression', 'zstd', 'this host gives no zstd decompressor: decompress it first')
}

/** What a decoder throws says which file it is. */
async function* named(chunks: AsyncIterable<Bytes>, file: string, compression: Compression): AsyncGenerator<Bytes> {
  try {
    yield* chunks
  } catch (cause) {
    if (cause instanceof NonrootError) throw cause
    const said = cause instanceof Error ? cause.message : String(cause)
    throw invalidImage(file, `${compression} data`, `bad (${said})`, 'the file is truncated or corrupted: get it again')
  }
}

/** Enough to tell the compression, and whether xz has a branch filter. */
const HEAD = 4096

/**
 * As `decompressChunks`, from a stream: of what is not compressed, or by gzip or xz, no more than a part is in memory. The others, and xz
 * with a branch filter, are taken in whole.
 */
export async function* decompressStream(
  chunks: Chunks,
  decompressors: Decompressors,
  file: string,
): AsyncGenerator<Bytes> {
  const reader = new ChunkReader(chunks)
  try {
    const head = await reader.read(HEAD)
    const rest = async function* (): AsyncGenerator<Bytes> {
      yield head
      for (let part = await reader.readSome(CHUNK); part; part = await reader.readSome(CHUNK)) yield part
    }
    const compression = compressionOf(head)
    if (compression === 'none') return yield* rest()
    if (compression === 'gzip')
      return yield* named(chunksOf(streamOf(rest()).pipeThrough(new DecompressionStream('gzip'))), file, compression)
    if (compression === 'xz' && !hasBranchFilter(head))
      return yield* named(chunksOf(new xz.XzReadableStream(streamOf(rest()))), file, compression)
    const parts: Bytes[] = []
    for await (const part of rest()) parts.push(part.slice())
    yield* decompressChunks(concatBytes(parts), decompressors, file)
  } finally {
    await reader.close()
  }
}

export async function decompress(bytes: Bytes, decompressors: Decompressors = {}, file = 'data'): Promise<Bytes> {
  if (compressionOf(bytes) === 'none') return bytes
  const parts: Bytes[] = []
  for await (const chunk of decompressChunks(bytes, decompressors, file)) parts.push(chunk)
  return parts.length === 1 ? parts[0]! : concatBytes(parts)
}
