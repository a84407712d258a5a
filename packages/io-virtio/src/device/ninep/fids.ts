/** Fids: the numbers by which a client refers to files, folders and links of the share, open or not. Bounded. */

import type { FolderEntryKind, FolderFile, FolderNode } from '@nonroot/contracts'
import { NO_FID, ProtocolError } from './messages.ts'

/** Fids that a client may have. */
const MOST_FIDS = 8192
/** Names of folders being read, of all fids together. */
const MOST_ENTRIES = 1 << 20

export interface FolderEntry {
  readonly name: string
  readonly kind: FolderEntryKind
}

export interface Fid {
  node: FolderNode
  file?: FolderFile
  /** Open folder: its entries as they were at the last reading from the start. */
  entries?: readonly FolderEntry[]
  opened?: boolean
}

export class Fids {
  readonly #fids = new Map<number, Fid>()
  #entries = 0

  get(number: number): Fid {
    const fid = this.#fids.get(number)
    if (!fid) throw new ProtocolError('EBADF')
    return fid
  }

  /** Whether that number stands for this one. */
  is(number: number, fid: Fid): boolean {
    return this.#fids.get(number) === fid
  }

  async bind(number: number, fid: Fid): Promise<void> {
    const taken = this.#fids.has(number) || number === NO_FID
    if (taken || this.#fids.size >= MOST_FIDS) {
      await close(fid)
      throw new ProtocolError(taken ? 'EBADF' : 'ENFILE')
    }
    this.#fids.set(number, fid)
  }

  async clunk(number: number): Promise<void> {
    const fid = this.get(number)
    this.#fids.delete(number)
    this.#forgetEntries(fid)
    await close(fid)
  }

  async clear(): Promise<void> {
    const fids = [...this.#fids.values()]
    this.#fids.clear()
    this.#entries = 0
    for (const fid of fids) await close(fid)
  }

  keepEntries(fid: Fid, entries: readonly FolderEntry[]): void {
    this.#forgetEntries(fid)
    if (this.#entries + entries.length > MOST_ENTRIES) throw new ProtocolError('ENOMEM')
    this.#entries += entries.length
    fid.entries = entries
  }

  #forgetEntries(fid: Fid): void {
    this.#entries -= fid.entries?.length ?? 0
    delete fid.entries
  }
}

async function close(fid: Fid): Promise<void> {
  await fid.file?.close().catch(() => {})
  await fid.node.release()
}
