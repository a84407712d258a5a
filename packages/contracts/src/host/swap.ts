/** Where the content of pages goes that are taken from guests: a compressor, and a file. Implemented per host. */

export interface SwapRequest {
  /** Path of the swap file. Absent: there is none. */
  readonly file?: string | undefined
  /** Size of the file in bytes. */
  readonly size?: number | undefined
}

/**
 * A file of pages of 4096 bytes. What is written is encrypted with a key that exists only in this process, so it cannot be read later, and carries a
 * checksum: a page that comes back is the page that was written last, or the read fails.
 */
export interface SwapFile {
  /** Pages that it can hold. */
  readonly pages: number
  /** Synchronous, into the host's page cache. Throws where the host has no space or the file cannot be written. */
  write(page: number, from: Uint8Array): void
  /** Throws if the page is not as it was written: the file is short, damaged, or cannot be read. */
  readNow(page: number, into: Uint8Array): void
  /** As `readNow`, in the background. May read the pages beside it as well, for `isNear`. */
  read(page: number): Promise<Uint8Array>
  /** Whether the page was read ahead, so that `readNow` does not access the file. */
  isNear?(page: number): boolean
}

export interface SwapBackend {
  /** The page in fewer bytes, or in more if it cannot be compressed. A buffer of the caller's. */
  compress(page: Uint8Array): Uint8Array
  /** Throws if these are not bytes of `compress`. */
  expand(packed: Uint8Array, into: Uint8Array): void
  /** Absent: the request named none. */
  readonly file?: SwapFile
  close(): void
}
