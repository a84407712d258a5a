/** A device's state as one plain object: reset, save and restore are the same copy. Independent of devices. */

import { NonrootError, snapshotData } from '@nonroot/contracts'
import type { Snapshot, SnapshotValue } from '@nonroot/contracts'

type Words = Uint8Array | Uint16Array | Uint32Array | Float64Array
type StateValue = number | boolean | bigint | string | Words

/** A device's state. Arrays are changed in place, so that references to them stay valid. */
export type State = { [key: string]: StateValue }

const isWords = (value: unknown): value is Words => ArrayBuffer.isView(value) && !(value instanceof DataView)

/** Assigns the values of `from` to `state`. */
export function assignState<S extends State>(state: S, from: Readonly<S>): void {
  for (const key of Object.keys(state) as (keyof S)[]) {
    const value = from[key]
    const old = state[key]
    if (isWords(old) && isWords(value)) old.set(value as never)
    else state[key] = value
  }
}

export function saveState(type: string, version: number, state: State): Snapshot {
  const data: Record<string, SnapshotValue> = {}
  for (const [key, value] of Object.entries(state)) {
    data[key] = isWords(value) ? (value instanceof Uint8Array ? value.slice() : Array.from(value)) : value
  }
  return { type, version, data }
}

export function restoreState(snapshot: Snapshot, type: string, version: number, state: State): void {
  const data = snapshotData(snapshot, type, version)
  for (const [key, old] of Object.entries(state)) {
    const value = data[key]
    if (isWords(old)) {
      const words = value as ArrayLike<number> | undefined
      if (words?.length !== old.length) throw wrong(type, key)
      old.set(words as never)
    } else {
      if (typeof value !== typeof old) throw wrong(type, key)
      state[key] = value as StateValue
    }
  }
}

const wrong = (type: string, key: string): NonrootError =>
  new NonrootError({
    code: 'snapshot.mismatch',
    message: `${type}: the snapshot's "${key}" is missing or of another shape`,
    thing: type,
  })
