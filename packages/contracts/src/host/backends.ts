/** What devices need from the host. Implemented per host (`host-node`); a device never accesses files or sockets. */

import type { FolderBackend, FolderRequest } from './folder.ts'
import type { NetworkBackend, NetworkRequest } from '../devices/network.ts'
import type { SocketBackend, SocketRequest, SocketStream } from './sockets.ts'
import type { StreamRequest } from './stream.ts'
import type { SwapBackend, SwapRequest } from './swap.ts'
import type { OpenCodeMemory } from './code-memory.ts'
import type { ThreadBackend } from './threads.ts'
import { token } from '../base/token.ts'

/**
 * A disk. Offsets and lengths in bytes, multiples of `sectorSize`, inside `size`: the device checks before it calls. Requests may complete in any
 * order. A rejected promise is an I/O error of that request only.
 */
export interface BlockBackend {
  readonly size: number
  readonly sectorSize: number
  readonly readOnly: boolean
  read(offset: number, into: Uint8Array): Promise<void>
  write(offset: number, from: Uint8Array): Promise<void>
  /** As `read` and `write`, with the bytes in several buffers. Absent: `readScattered` and `writeGathered` use `read` and `write`. */
  readVector?(offset: number, into: readonly Uint8Array[]): Promise<void>
  writeVector?(offset: number, from: readonly Uint8Array[]): Promise<void>
  /**
   * As `readVector` and `writeVector`, but synchronous, if that takes no longer than passing the request to another thread (the bytes are in the
   * host's page cache). False: nothing was done. I/O errors are thrown.
   */
  readNow?(offset: number, into: readonly Uint8Array[]): boolean
  writeNow?(offset: number, from: readonly Uint8Array[]): boolean
  /** As `readNow`, but done however long it takes: for a page that is needed by somebody who cannot wait. */
  readBlocking?(offset: number, into: Uint8Array): void
  /** Resolves when all writes completed before the call are durable. */
  flush(): Promise<void>
  /** The content of the range is no longer needed. */
  discard?(offset: number, length: number): Promise<void>
  writeZeroes?(offset: number, length: number): Promise<void>
  /** `size` changed. */
  onResize?(listener: (size: number) => void): () => void
  close(): Promise<void>
}

/** Size of the buffer through which bytes are copied, for back ends that take only one stretch of bytes. */
const SLICE = 256 * 1024

/** Reads a disk into several buffers: guest memory that was lent to a device. */
export async function readScattered(
  disk: Pick<BlockBackend, 'read' | 'readVector'>,
  offset: number,
  into: readonly Uint8Array[],
): Promise<void> {
  if (disk.readVector) return disk.readVector(offset, into)
  if (into.length === 1) return disk.read(offset, into[0]!)
  for (const { at, length, each } of slices(into)) {
    const buffer = new Uint8Array(length)
    await disk.read(offset + at, buffer)
    each((part, from) => part.set(buffer.subarray(from, from + part.length)))
  }
}

/** Writes a disk from several buffers. */
export async function writeGathered(
  disk: Pick<BlockBackend, 'write' | 'writeVector'>,
  offset: number,
  from: readonly Uint8Array[],
): Promise<void> {
  if (disk.writeVector) return disk.writeVector(offset, from)
  if (from.length === 1) return disk.write(offset, from[0]!)
  for (const { at, length, each } of slices(from)) {
    const buffer = new Uint8Array(length)
    each((part, start) => buffer.set(part, start))
    await disk.write(offset + at, buffer)
  }
}

/** Stretches of at most `SLICE` bytes, and the parts of `views` that each is made of. */
function* slices(views: readonly Uint8Array[]) {
  const total = views.reduce((sum, view) => sum + view.length, 0)
  for (let at = 0; at < total; at += SLICE) {
    const length = Math.min(SLICE, total - at)
    const each = (visit: (part: Uint8Array, from: number) => void): void => {
      let start = 0
      for (const view of views) {
        const [first, end] = [Math.max(start, at), Math.min(start + view.length, at + length)]
        if (first < end) visit(view.subarray(first - start, end - start), first - at)
        start += view.length
      }
    }
    yield { at, length, each }
  }
}

/** A terminal: bytes in both directions. The host decides what it is connected to (a tty, a pipe, a web page). */
export interface ConsoleBackend {
  /** Writes bytes. They are copied before it returns. */
  write(bytes: Uint8Array): void
  onInput(listener: (bytes: Uint8Array) => void): () => void
  /** Columns and rows, if it has a size. */
  size(): { readonly columns: number; readonly rows: number } | undefined
  onResize(listener: (size: { columns: number; rows: number }) => void): () => void
  /** Resolves when all bytes have been written. */
  drain?(): Promise<void>
}

/** Random bytes for the guest. Deterministic runs use a seeded source. */
export interface EntropyBackend {
  fill(into: Uint8Array): void
}

/** Files named by a configuration: kernels, images. Paths are resolved against the configuration file's folder. */
export interface FileBackend {
  readFile(path: string): Promise<Uint8Array>
  /** A file to be read in parts. Undefined: its size is not known, so it can only be read as a whole. */
  openFile?(path: string): Promise<OpenedFile | undefined>
  resolve(path: string): string
}

export interface OpenedFile {
  readonly length: number
  /** A copy of a part, now. Throws if the file became shorter. */
  read(at: number, length: number): Uint8Array
  /** Fills the views in order. They may be shared memory. */
  readInto(at: number, views: readonly Uint8Array[]): Promise<void>
  close(): void
}
export const FileBackend = token<FileBackend>('FileBackend')

export interface BlockRequest {
  /** Path or URL from the configuration. */
  readonly image: string
  readonly readOnly?: boolean
  /** `raw`, `qcow2`, ... Absent: determined by the file name's extension; never by content, which a guest can write. */
  readonly format?: string
  /** Writes stay in memory and are discarded with the VM; the image is opened read-only. */
  readonly temporary?: boolean
  /** Where an image's backing files may be: in its own folder and below, which is the default, or anywhere. */
  readonly backingFiles?: 'beside' | 'anywhere'
}

/** The bytes that a disk format is stored in: a file, a buffer. Rejections are I/O errors. */
export interface ByteStore {
  /** Bytes. Grows by `write` beyond its end. */
  readonly size: number
  /** Bytes beyond the end read as zeros. */
  read(offset: number, into: Uint8Array): Promise<void>
  write(offset: number, from: Uint8Array): Promise<void>
  /** Resolves when all previous writes are durable. */
  flush(): Promise<void>
  close(): Promise<void>
}

export interface BlockFormatContext {
  readonly readOnly: boolean
  /** For messages. */
  readonly name: string
  /** Opens a backing file, read-only, by the name in the image. The image may also name its format. */
  openBacking(file: string, format: string | undefined): Promise<BlockBackend>
}

/** A disk format. Passed to the host's back ends, which open the files. */
export interface BlockFormat {
  /** `qcow2`, which is also the extension of its images. */
  readonly name: string
  /** Whether an image that is configured as raw begins like one of this format. */
  detects(head: Uint8Array): boolean
  open(store: ByteStore, context: BlockFormatContext): Promise<BlockBackend>
}

/** The back ends by kind: what `DeviceContext.backend` opens. */
export interface BackendKinds {
  block: { request: BlockRequest; backend: BlockBackend }
  network: { request: NetworkRequest; backend: NetworkBackend }
  console: { request: { readonly name?: string }; backend: ConsoleBackend }
  entropy: { request: Record<never, never>; backend: EntropyBackend }
  files: { request: Record<never, never>; backend: FileBackend }
  folder: { request: FolderRequest; backend: FolderBackend }
  sockets: { request: SocketRequest; backend: SocketBackend }
  /** Rejects if no one listens. */
  stream: { request: StreamRequest; backend: SocketStream }
  swap: { request: SwapRequest; backend: SwapBackend }
}

/** Opens back ends. One per host, passed to the hypervisor by its embedder; `host-node` implements the usual ones. */
export interface HostBackends {
  open<K extends keyof BackendKinds>(kind: K, request: BackendKinds[K]['request']): Promise<BackendKinds[K]['backend']>
  /** Absent: the host has no threads. */
  readonly threads?: ThreadBackend
  /** Data generated at build time, by name, which would otherwise be generated at each start. Undefined: there is none. */
  readonly prebuilt?: ((name: string) => Uint8Array | undefined) | undefined
  /** Absent: each run compiles guest code anew. */
  readonly openCodeMemory?: OpenCodeMemory | undefined
}
export const HostBackends = token<HostBackends>('HostBackends')
