/** `nonroot image disk`: makes a disk file of a folder or an archive. */

import type { DiskHost, OnProgress } from '../host.ts'
import type { DiskEntries, DiskEntry } from './entry.ts'
import { makeExt4 } from './ext4/make.ts'
import type { Ext4Made, MakeExt4Options } from './ext4/make.ts'

export interface MakeDiskOptions extends Omit<MakeExt4Options, 'name' | 'onEntry'> {
  /** A folder or a tar archive. */
  readonly from: string
  /** The disk file. */
  readonly to: string
  /** In bytes. */
  readonly size: number
  /** Changes what comes, leaves out, and adds. */
  readonly adapt?: (entries: DiskEntries) => DiskEntries
  readonly onProgress?: OnProgress
}

/** Whole or not at all. */
export async function makeDisk(host: DiskHost, options: MakeDiskOptions): Promise<Ext4Made> {
  const { from, to, size, adapt = (entries) => entries, onProgress = () => {}, ...rest } = options
  const source = await host.openSource(from)
  const { disk, keep, discard } = await host.createDisk(to, size)
  try {
    const tell = () => onProgress({ step: 'write', what: to, done: source.done(), total: source.total })
    tell()
    const made = await makeExt4(disk, adapt(source.entries), { ...rest, name: to, onEntry: telling(tell) })
    await keep()
    onProgress({ step: 'write', what: to, done: source.total, total: source.total })
    return made
  } catch (error) {
    await discard()
    throw error
  }
}

const ENTRIES_BETWEEN = 64 // words to a person who watches

function telling(tell: () => void): (entry: DiskEntry) => void {
  let count = 0
  return () => {
    if (++count % ENTRIES_BETWEEN === 0) tell()
  }
}
