/** What a device needs of the outside world. Implemented per host (`host-node`); a device never touches files or sockets. */

import type { FolderBackend, FolderRequest } from './folder.ts'
import type { SocketBackend, SocketRequest } from './sockets.ts'
import { token } from './token.ts'

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
  /** Resolves when all writes completed before the call are durable. */
  flush(): Promise<void>
  /** The range's content no longer matters. */
  discard?(offset: number, length: number): Promise<void>
  writeZeroes?(offset: number, length: number): Promise<void>
  /** `size` changed. */
  onResize?(listener: (size: number) => void): () => void
  close(): Promise<void>
}

/** A network. Frames are whole Ethernet frames without FCS. */
export interface NetworkBackend {
  /** Six bytes. */
  readonly macAddress: Uint8Array
  readonly mtu: number
  /** False: the queue is full, the frame is dropped. The back end copies before it returns. */
  send(frame: Uint8Array): boolean
  /** The frame is valid during the call only. */
  onReceive(listener: (frame: Uint8Array) => void): () => void
  close(): Promise<void>
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
  resolve(path: string): string
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
  network: { request: { readonly network: string; readonly mac?: string }; backend: NetworkBackend }
  console: { request: { readonly name?: string }; backend: ConsoleBackend }
  entropy: { request: Record<never, never>; backend: EntropyBackend }
  files: { request: Record<never, never>; backend: FileBackend }
  folder: { request: FolderRequest; backend: FolderBackend }
  sockets: { request: SocketRequest; backend: SocketBackend }
}

/** Opens back ends. One per host, given to the hypervisor by its embedder; `host-node` has the usual ones. */
export interface HostBackends {
  open<K extends keyof BackendKinds>(kind: K, request: BackendKinds[K]['request']): Promise<BackendKinds[K]['backend']>
}
export const HostBackends = token<HostBackends>('HostBackends')
