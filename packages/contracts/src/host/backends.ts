/** What a device needs of the outside world. Implemented per host (`host-node`); a device never touches files or sockets. */

import type { FolderBackend, FolderRequest } from './folder.ts'
import type { NetworkBackend, NetworkRequest } from '../devices/network.ts'
import type { SocketBackend, SocketRequest } from './sockets.ts'
import type { ThreadBackend } from './threads.ts'
import { token } from '../base/token.ts'

/**
 * A disk. Offsets and lengths in bytes, multiples of `sectorSize`, inside `size`: the device checks before it calls. Requests may complete
 * in any order. A rejected promise is an I/O error of that request and nothing else.
 */
export interface BlockBackend {
  readonly size: number
  readonly sectorSize: number
  readonly readOnly: boolean
  read(offset: number, into: Uint8Array): Promise<void>
  write(offset: number, from: Uint8Array): Promise<void>
  /** As `read` and `write`, with the bytes in several places. Absent: `readScattered` and `writeGathered` make do. */
  readVector?(offset: number, into: readonly Uint8Array[]): Promise<void>
  writeVector?(offset: number, from: readonly Uint8Array[]): Promise<void>
  /**
   * As `readVector` and `writeVector`, done when they return, if that takes no longer than handing the request to another thread would (the
   * bytes are in the host's page cache). False: nothing was done. An I/O error is thrown.
   */
  readNow?(offset: number, into: readonly Uint8Array[]): boolean
  writeNow?(offset: number, from: readonly Uint8Array[]): boolean
  /** Resolves when all writes completed before the call are durable. */
  flush(): Promise<void>
  /** The range's content no longer matters. */
  discard?(offset: number, length: number): Promise<void>
  writeZeroes?(offset: number, length: number): Promise<void>
  /** `size` changed. */
  onResize?(listener: (size: number) => void): () => void
  close(): Promise<void>
}

/** Bytes that go through a buffer at a time, where a back end takes one stretch of bytes only. */
const SLICE = 256 * 1024

/** Read a disk into several places: guest memory, as a device was lent it. */
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

/** Write a disk from several places. */
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

/** A terminal: bytes both ways. What lies behind (a tty, a pipe, a web page) is the host's affair. */
export interface ConsoleBackend {
  /** Bytes to show. Copied before it returns. */
  write(bytes: Uint8Array): void
  onInput(listener: (bytes: Uint8Array) => void): () => void
  /** Columns and rows, if it has a size. */
  size(): { readonly columns: number; readonly rows: number } | undefined
  onResize(listener: (size: { columns: number; rows: number }) => void): () => void
  /** Resolves when all was shown. */
  drain?(): Promise<void>
}

/** Random bytes for the guest. Deterministic runs get a seeded one. */
export interface EntropyBackend {
  fill(into: Uint8Array): void
}

/** Files named by a configuration: kernels, images. Paths are resolved against the configuration file's folder. */
export interface FileBackend {
  readFile(path: string): Promise<Uint8Array>
  /** A file to be read in parts. Undefined: it is none of a known size, and can only be read at once. */
  openFile?(path: string): Promise<OpenedFile | undefined>
  resolve(path: string): string
}

export interface OpenedFile {
  readonly length: number
  /** A copy of a part, now. Throws where the file became shorter. */
  read(at: number, length: number): Uint8Array
  /** Fills the views, one after the other. They may be shared memory. */
  readInto(at: number, views: readonly Uint8Array[]): Promise<void>
  close(): void
}
export const FileBackend = token<FileBackend>('FileBackend')

export interface BlockRequest {
  /** Path or URL as the configuration gives it. */
  readonly image: string
  readonly readOnly?: boolean
  /** `raw`, `qcow2`, ... Absent: by the name's ending. Never by content: a guest writes that. */
  readonly format?: string
  /** What is written stays in memory and is forgotten with the VM; the image is opened read-only. */
  readonly temporary?: boolean
  /** Where an image may have its backing files: in its own folder (and below), which is the default, or anywhere. */
  readonly backingFiles?: 'beside' | 'anywhere'
}

/** Bytes that a disk format is laid over: a file, a buffer. Rejections are I/O errors. */
export interface ByteStore {
  /** Bytes. Grows by `write` beyond its end. */
  readonly size: number
  /** What is beyond the end reads as zeros. */
  read(offset: number, into: Uint8Array): Promise<void>
  write(offset: number, from: Uint8Array): Promise<void>
  /** Resolves when all that was written before is durable. */
  flush(): Promise<void>
  close(): Promise<void>
}

export interface BlockFormatContext {
  readonly readOnly: boolean
  /** For messages. */
  readonly name: string
  /** A backing file, read-only, as the image names it. Its format may be in the image, too. */
  openBacking(file: string, format: string | undefined): Promise<BlockBackend>
}

/** A disk format. Given to the host's back ends, which have the files. */
export interface BlockFormat {
  /** `qcow2`. Images whose names end in it have it. */
  readonly name: string
  /** Whether an image that is said to be raw begins like one of this format. */
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
}

/** Opens back ends. One per host, given to the hypervisor by its embedder; `host-node` has the usual ones. */
export interface HostBackends {
  open<K extends keyof BackendKinds>(kind: K, request: BackendKinds[K]['request']): Promise<BackendKinds[K]['backend']>
  /** Absent: the host has no threads to give. */
  readonly threads?: ThreadBackend
  /** Bytes that were made when this build was, by name: what would otherwise be made anew at each start. Undefined: there are none. */
  readonly prebuilt?: ((name: string) => Uint8Array | undefined) | undefined
}
export const HostBackends = token<HostBackends>('HostBackends')
