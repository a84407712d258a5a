/** Puts entries onto an empty disk as an ext4 file system. */

import type { BlockBackend } from '@nonroot/contracts'
import type { Bytes } from '../../bytes.ts'
import type { DiskEntries, DiskEntry } from '../entry.ts'
import { Ext4Writer } from './writer.ts'
import type { Ext4Summary } from './writer.ts'

export interface MakeExt4Options {
  /** For messages. */
  readonly name: string
  /** Up to 16 bytes. */
  readonly label?: string
  /** 16 bytes; random where absent. */
  readonly uuid?: Bytes
  /** Nanoseconds since 1970; now where absent. */
  readonly made?: bigint
  /** Before each entry. */
  readonly onEntry?: (entry: DiskEntry) => void
}

export interface Ext4Made extends Ext4Summary {
  /** As fstab and `root=UUID=` have it. */
  readonly uuid: string
}

/** A random UUID. (RFC 4122, version 4) */
export function randomUuid(): Bytes {
  const uuid = crypto.getRandomValues(new Uint8Array(16))
  uuid[6] = (uuid[6]! & 0x0f) | 0x40
  uuid[8] = (uuid[8]! & 0x3f) | 0x80
  return uuid
}

export const formatUuid = (uuid: Bytes): string =>
  [...uuid]
    .map((byte) => byte.toString(16).padStart(2, '0'))
    .join('')
    .replace(/(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')

/** `disk` is all zeros; its whole size is used. The same entries, UUID and time give the same bytes. */
export async function makeExt4(disk: BlockBackend, entries: DiskEntries, options: MakeExt4Options): Promise<Ext4Made> {
  const { name, label = '', uuid = randomUuid(), made = BigInt(Date.now()) * 1_000_000n } = options
  // Cannot be guessed without the disk.
  const hashSeed = new Uint8Array(await crypto.subtle.digest('SHA-256', uuid as Uint8Array<ArrayBuffer>)).subarray(
    0,
    16,
  )
  const writer = new Ext4Writer(disk, { name, size: disk.size, label, uuid, made, hashSeed })
  for await (const entry of entries) {
    options.onEntry?.(entry)
    await writer.add(entry)
  }
  return { ...(await writer.finish()), uuid: formatUuid(uuid) }
}
