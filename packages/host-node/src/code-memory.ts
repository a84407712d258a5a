/** Compiled guest code remembered in files: one for each build that made it, of records one after the other, the newest last. */

import {
  closeSync,
  fstatSync,
  mkdirSync,
  openSync,
  readSync,
  readdirSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { crc32 } from 'node:zlib'
import type { CodeMemory, CodeRecord, OpenCodeMemory } from '@nonroot/contracts'

/** Before each record, as 32-bit words, little-endian: this, its key, its length in bytes, its CRC-32. */
const MAGIC = 0x6e72_6331
const MAGIC_BYTES = Buffer.from(Uint32Array.of(MAGIC).buffer)
const HEAD = 16
/** A boot has 5 MB, and a build by gcc 30 MB more. */
const MOST_BYTES = 64 << 20
/** What is read at once when a file is opened. */
const CHUNK = 1 << 20
/** A file that nothing was added to for so long goes when another is opened: its build has probably been replaced. */
const KEPT_MS = 30 * 24 * 3600 * 1000

interface Place {
  readonly key: number
  /** Of its head. */
  readonly at: number
  /** With its head. */
  readonly length: number
}

/**
 * Several processes may use one folder: each appends what is new to it. A file that cannot be read or written is as good as none, what is damaged in one is
 * passed over, and of one that is too long the newest half is kept. All may be deleted at any time. `most`: bytes of a file.
 */
export function openCodeFolder(folder: string, { most = MOST_BYTES } = {}): OpenCodeMemory {
  return (identity) => {
    const file = join(folder, identity)
    attempt(() => removeOld(folder, identity))
    attempt(() => shorten(file, most))
    return new CodeFile(file)
  }
}

class CodeFile implements CodeMemory {
  /** Perhaps only for reading. Undefined: there is no such file, nor can there be one. */
  #fd: number | undefined
  readonly #places = new Map<number, Place[]>()

  constructor(file: string) {
    this.#fd = attempt(() => openToAdd(file)) ?? attempt(() => openSync(file, 'r'))
    const places = this.#fd === undefined ? undefined : attempt(() => placesIn(this.#fd!))
    for (const place of places ?? []) this.#enter(place)
  }

  has(key: number): boolean {
    return this.#places.has(key)
  }

  find(key: number): Uint8Array[] {
    const records = (this.#places.get(key) ?? []).map((place) => attempt(() => readRecord(this.#fd!, place)))
    return records.filter((record) => record !== undefined).toReversed()
  }

  add(records: readonly CodeRecord[]): void {
    const fd = this.#fd
    if (fd === undefined || !records.length) return
    attempt(() => {
      // If another process adds at the same moment the places are wrong, which is seen when they are read.
      let at = fstatSync(fd).size
      writeSync(fd, Buffer.concat(records.flatMap((record) => [headOf(record), record.bytes])))
      for (const { key, bytes } of records) {
        this.#enter({ key, at, length: HEAD + bytes.length })
        at += HEAD + bytes.length
      }
    })
  }

  dispose(): void {
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
    this.#places.clear()
  }

  #enter(place: Place): void {
    const others = this.#places.get(place.key)
    if (others) others.push(place)
    else this.#places.set(place.key, [place])
  }
}

function openToAdd(file: string): number {
  mkdirSync(dirname(file), { recursive: true })
  return openSync(file, 'a+')
}

function headOf({ key, bytes }: CodeRecord): Buffer {
  const head = Buffer.alloc(HEAD)
  head.writeUInt32LE(MAGIC, 0)
  head.writeUInt32LE(key, 4)
  head.writeUInt32LE(bytes.length, 8)
  head.writeUInt32LE(crc32(bytes), 12)
  return head
}

/** Undefined: another record, or none, is there. */
function readRecord(fd: number, { key, at, length }: Place): Uint8Array | undefined {
  const all = Buffer.allocUnsafe(length)
  if (readSync(fd, all, 0, length, at) !== length) return undefined
  const bytes = all.subarray(HEAD)
  return headOf({ key, bytes }).equals(all.subarray(0, HEAD)) ? bytes : undefined
}

/** Where records may be. What lies between is passed over; they themselves are checked when they are read. */
function placesIn(fd: number): Place[] {
  const { size } = fstatSync(fd)
  const chunk = Buffer.allocUnsafe(Math.min(CHUNK, size))
  const places: Place[] = []
  let [start, end] = [0, 0]
  /** Behind the last record that was searched for others. */
  let searched = 0
  for (let at = 0; at + HEAD <= size;) {
    if (at < start || at + HEAD > end) {
      start = at
      end = at + readSync(fd, chunk, 0, chunk.length, at)
      if (at + HEAD > end) break
    }
    const length = HEAD + chunk.readUInt32LE(at - start + 8)
    const last = places.at(-1)
    if (chunk.readUInt32LE(at - start) === MAGIC && at + length <= size) {
      places.push({ key: chunk.readUInt32LE(at - start + 4), at, length })
      at += length
    } else if (last && last.at + last.length === at && at > searched) {
      // Behind a record there is another: perhaps the last was cut short before others were added, which then begin within its length.
      searched = at
      at = last.at + 1
    } else {
      const next = chunk.subarray(0, end - start).indexOf(MAGIC_BYTES, at - start + 1)
      at = next < 0 ? Math.max(at + 1, end - MAGIC_BYTES.length + 1) : start + next
    }
  }
  return places
}

function shorten(file: string, most: number): void {
  if (statSync(file).size <= most) return
  const fd = openSync(file, 'r')
  try {
    let room = most / 2
    const kept = placesIn(fd)
      .toReversed()
      .filter(({ length }) => (room -= length) >= 0)
      .toReversed()
    const records = kept.flatMap((place) => {
      const bytes = readRecord(fd, place)
      return bytes ? [headOf({ key: place.key, bytes }), bytes] : []
    })
    // In a file of its own until it is complete.
    writeFileSync(`${file}.${process.pid}`, Buffer.concat(records))
    renameSync(`${file}.${process.pid}`, file)
  } finally {
    closeSync(fd)
  }
}

function removeOld(folder: string, identity: string): void {
  for (const name of readdirSync(folder)) {
    const file = join(folder, name)
    if (name !== identity && Date.now() - statSync(file).mtimeMs > KEPT_MS) rmSync(file)
  }
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action()
  } catch {
    return undefined
  }
}
