/** The saved state of a part. Plain data, so that it survives structuredClone, postMessage and a file. */

import { NonrootError } from './errors.ts'

export type SnapshotValue =
  | null
  | boolean
  | number
  | bigint
  | string
  | Uint8Array
  | readonly SnapshotValue[]
  | { readonly [key: string]: SnapshotValue }

/**
 * State of one part. The part owns `data`'s shape and may change it with `version`; it is opaque to everything else. `restore` of a version it does
 * not know throws `snapshot.mismatch`.
 */
export interface Snapshot {
  /** The kind of part: `uart16550`, `vcpu`. */
  readonly type: string
  /** Version of `data`'s shape, from 1. */
  readonly version: number
  readonly data: { readonly [key: string]: SnapshotValue }
}

/** A part that saves and restores itself. The kernel calls both only while no vCPU of the VM runs. */
export interface Saveable {
  save(): Snapshot
  restore(snapshot: Snapshot): void
}

/** The data of a snapshot of this type and version; anything else throws `snapshot.mismatch`. */
export function snapshotData(snapshot: Snapshot, type: string, version: number): Snapshot['data'] {
  if (snapshot.type === type && snapshot.version === version) return snapshot.data
  throw new NonrootError({
    code: 'snapshot.mismatch',
    message: `a snapshot of ${snapshot.type}, version ${snapshot.version}, does not fit ${type}, version ${version}`,
    thing: type,
    remedy: 'restore it with the stack and the version of nonroot that saved it',
  })
}
