/** What the image pipeline needs from the host: files, programs and decompressors. Implemented by the host's package. */
import type { BlockBackend } from '@nonroot/contracts'
import type { Bytes } from './bytes.ts'
import type { Decompressors } from './compression.ts'
import type { DiskEntries } from './disk/entry.ts'

export type RunResult =
  | { readonly found: false }
  | { readonly found: true; readonly status: number; readonly stdout: string; readonly stderr: string }

export interface RunOptions {
  readonly folder?: string
  readonly onLine?: (line: string) => void
}

export interface HttpResponse {
  readonly status: number
  readonly headers: { get(name: string): string | null }
  readonly body: AsyncIterable<Bytes> | null
}

/** One GET request, redirects not followed. Rejects where there is no answer. */
export type Fetch = (url: string, signal: AbortSignal) => Promise<HttpResponse>

export interface ImageHost {
  /** Runs a program found by name on PATH, without a shell, with LC_ALL=C, and waits for its end. `onLine`: what it says meanwhile. */
  run(program: string, args: readonly string[], options?: RunOptions): Promise<RunResult>
  /** Undefined where there is no such file. */
  readFile(path: string): Promise<Bytes | undefined>
  /** Whole or not at all (write beside, then rename), making folders as needed. */
  writeFile(path: string, bytes: Bytes): Promise<void>
  makeFolder(path: string): Promise<void>
  /** Names of what is in a folder; none where there is no such folder. */
  listFolder(path: string): Promise<readonly string[]>
  /** In bytes; undefined where there is no such file. */
  fileSize(path: string): Promise<number | undefined>
  removeFile(path: string): Promise<void>
  /** With all that is in it. */
  removeFolder(path: string): Promise<void>
  readonly decompressors?: Decompressors
  /** For mirrors. */
  readonly fetch?: Fetch
}

/** Where a disk's content comes from. `done()` and `total` count the same bytes: of a folder those of its files, of an archive its own. */
export interface DiskSource {
  readonly entries: DiskEntries
  readonly total: number
  done(): number
}

/** A disk that is being made: it takes its name when it is whole. */
export interface NewDisk {
  /** All zeros. */
  readonly disk: BlockBackend
  /** Closes it and gives it its name. */
  keep(): Promise<void>
  /** As if it had never been. */
  discard(): Promise<void>
}

/** A host that makes disks. */
export interface DiskHost extends ImageHost {
  /** A file's bytes as they are. */
  openStream(path: string): AsyncIterable<Bytes>
  /** A folder, or a tar archive with any compression. */
  openSource(path: string): Promise<DiskSource>
  /** raw, or qcow2 where the name ends in it. Refused where there is such a file. */
  createDisk(path: string, size: number): Promise<NewDisk>
}

/** One step of the pipeline, reported before it begins and as it advances; `done` and `total` in the unit the step counts. */
export interface Progress {
  readonly step: 'resolve' | 'update' | 'download' | 'unpack' | 'bootstrap' | 'write' | 'cached'
  readonly what: string
  readonly done: number
  readonly total: number
}
export type OnProgress = (progress: Progress) => void
