/** qcow2's header: read, checked, written. Independent of tables. (QEMU, "The qcow2 image format") */

import { NonrootError } from '@nonroot/contracts'
import type { ByteStore } from '@nonroot/contracts'

export const MAGIC = 0x514649fb
const Offset = {
  magic: 0,
  version: 4,
  backingOffset: 8,
  backingLength: 16,
  clusterBits: 20,
  size: 24,
  encryption: 32,
  l1Entries: 36,
  l1Offset: 40,
  refcountTableOffset: 48,
  refcountTableClusters: 56,
  snapshots: 60,
  snapshotsOffset: 64,
  incompatible: 72,
  compatible: 80,
  autoclear: 88,
  refcountOrder: 96,
  headerLength: 100,
} as const
const VERSION_2_LENGTH = 72
const VERSION_3_LENGTH = 104
const EXTENSION_BACKING_FORMAT = 0xe2792aca
const LEAST_CLUSTER_BITS = 9
const MOST_CLUSTER_BITS = 21
const LONGEST_BACKING_NAME = 1023
/** 32 MiB of L1 table, as QEMU: 2 PiB with the usual clusters. */
const MOST_L1_ENTRIES = 4 * 2 ** 20
const REPAIR = 'qemu-img check -r all IMAGE'
const convert = (options: string): string => `qemu-img convert -O qcow2${options} IMAGE NEW makes one that can be used`
/** By bit: what an image has, and what helps. */
const INCOMPATIBLE: readonly (readonly [what: string, remedy: string])[] = [
  ['its reference counts were not written when it was last closed', REPAIR],
  ['it is marked as corrupt', REPAIR],
  ['its data is in another file', convert('')],
  ['its clusters are compressed by zstd', convert(' -o compression_type=zlib')],
  ['subclusters', convert(' -o extended_l2=off')],
]

export interface Qcow2Header {
  readonly version: 2 | 3
  readonly clusterBits: number
  readonly clusterSize: number
  /** Of the disk. */
  readonly size: number
  l1Entries: number
  l1Offset: number
  refcountTableOffset: number
  refcountTableClusters: number
  readonly refcountBits: number
  readonly snapshots: number
  readonly backing?: { readonly file: string; readonly format: string | undefined }
}

export const getU64 = (view: DataView, at: number): number => view.getUint32(at) * 2 ** 32 + view.getUint32(at + 4)

export function setU64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / 2 ** 32))
  view.setUint32(at + 4, value >>> 0)
}

const bad = (name: string, what: string, remedy?: string): NonrootError =>
  new NonrootError({
    code: 'host.backend',
    message: `${name}: ${what}`,
    thing: name,
    ...(remedy === undefined ? {} : { remedy }),
  })

export const isQcow2 = (head: Uint8Array): boolean =>
  head.length >= 4 && new DataView(head.buffer, head.byteOffset).getUint32(0) === MAGIC

/** What is wrong with the image is said, with what would help. */
export async function readHeader(store: ByteStore, name: string, readOnly: boolean): Promise<Qcow2Header> {
  const bytes = new Uint8Array(4096)
  await store.read(0, bytes)
  const view = new DataView(bytes.buffer)
  if (!isQcow2(bytes)) throw bad(name, 'is not a qcow2 image', 'format: raw takes it as it is')
  const version = view.getUint32(Offset.version)
  if (version !== 2 && version !== 3) throw bad(name, `qcow2 version ${version}; 2 and 3 are known`)
  if (view.getUint32(Offset.encryption) !== 0)
    throw bad(name, 'the image is encrypted', 'qemu-img convert makes one that is not')
  checkFeatures(view, version, name, readOnly)
  const clusterBits = view.getUint32(Offset.clusterBits)
  if (clusterBits < LEAST_CLUSTER_BITS || clusterBits > MOST_CLUSTER_BITS)
    throw bad(name, `clusters of 2^${clusterBits} bytes are not from 2^${LEAST_CLUSTER_BITS} to 2^${MOST_CLUSTER_BITS}`)
  const clusterSize = 2 ** clusterBits
  const header: Qcow2Header = {
    version,
    clusterBits,
    clusterSize,
    size: getU64(view, Offset.size),
    l1Entries: view.getUint32(Offset.l1Entries),
    l1Offset: getU64(view, Offset.l1Offset),
    refcountTableOffset: getU64(view, Offset.refcountTableOffset),
    refcountTableClusters: view.getUint32(Offset.refcountTableClusters),
    refcountBits: version === 3 ? 2 ** view.getUint32(Offset.refcountOrder) : 16,
    snapshots: view.getUint32(Offset.snapshots),
    ...(await readBacking(store, view, version, name)),
  }
  checkLayout(header, store, name)
  return header
}

function checkFeatures(view: DataView, version: number, name: string, readOnly: boolean): void {
  if (version < 3) return
  const features = view.getUint32(Offset.incompatible + 4)
  // Reading needs no reference counts.
  const refused = readOnly ? features & ~1 : features
  if (refused === 0 && view.getUint32(Offset.incompatible) === 0) return
  const [what, remedy] = INCOMPATIBLE[31 - Math.clz32(refused & -refused)] ?? [
    'a feature that is not known',
    convert(''),
  ]
  throw bad(name, `the image cannot be used: ${what}`, remedy)
}

function checkLayout(header: Qcow2Header, store: ByteStore, name: string): void {
  const { clusterSize, size, l1Entries, l1Offset, refcountTableOffset, refcountTableClusters, refcountBits } = header
  const corrupt = (what: string): NonrootError => bad(name, `the image is damaged: ${what}`, 'qemu-img check says more')
  const within = (offset: number, length: number): boolean =>
    offset % clusterSize === 0 && offset > 0 && offset + length <= roundUp(store.size, clusterSize)
  if (!Number.isSafeInteger(size) || size === 0 || size % 512 !== 0) throw corrupt(`a disk of ${size} bytes`)
  if (l1Entries > MOST_L1_ENTRIES || l1Entries < Math.ceil(size / (clusterSize * (clusterSize / 8))))
    throw corrupt(`${l1Entries} entries of its L1 table do not fit a disk of ${size} bytes`)
  if (!within(l1Offset, l1Entries * 8)) throw corrupt(`its L1 table is at ${l1Offset}`)
  if (!within(refcountTableOffset, refcountTableClusters * clusterSize) || refcountTableClusters === 0)
    throw corrupt(`its refcount table is at ${refcountTableOffset}`)
  if (refcountBits !== 16)
    throw bad(
      name,
      `reference counts of ${refcountBits} bits; 16 are known`,
      'qemu-img convert -O qcow2 -o refcount_bits=16 IMAGE NEW makes one that can be used',
    )
}

async function readBacking(
  store: ByteStore,
  view: DataView,
  version: number,
  name: string,
): Promise<Pick<Qcow2Header, 'backing'>> {
  const offset = getU64(view, Offset.backingOffset)
  const length = view.getUint32(Offset.backingLength)
  if (offset === 0 || length === 0) return {}
  if (length > LONGEST_BACKING_NAME || offset + length > view.byteLength)
    throw bad(name, `the name of its backing file has ${length} bytes at ${offset}`)
  const text = (at: number, size: number): string => new TextDecoder().decode(new Uint8Array(view.buffer, at, size))
  let format: string | undefined
  // Header extensions: type, length, data padded to 8.
  let at = version === 3 ? view.getUint32(Offset.headerLength) : VERSION_2_LENGTH
  while (at + 8 <= offset) {
    const type = view.getUint32(at)
    const size = view.getUint32(at + 4)
    if (type === 0 || at + 8 + size > view.byteLength) break
    if (type === EXTENSION_BACKING_FORMAT) format = text(at + 8, size)
    at += 8 + roundUp(size, 8)
  }
  return { backing: { file: text(offset, length), format } }
}

export const roundUp = (value: number, to: number): number => Math.ceil(value / to) * to

/** Features that hold only while everybody who writes knows them (dirty bitmaps): we do not. */
export async function clearAutomatic(store: ByteStore, { version }: Qcow2Header): Promise<void> {
  if (version === 3) await store.write(Offset.autoclear, new Uint8Array(8))
}

/** The parts of the header that change while an image is used. */
export async function writeTablePlaces(store: ByteStore, header: Qcow2Header): Promise<void> {
  const view = new DataView(new ArrayBuffer(Offset.snapshots - Offset.l1Entries))
  view.setUint32(0, header.l1Entries)
  setU64(view, Offset.l1Offset - Offset.l1Entries, header.l1Offset)
  setU64(view, Offset.refcountTableOffset - Offset.l1Entries, header.refcountTableOffset)
  view.setUint32(Offset.refcountTableClusters - Offset.l1Entries, header.refcountTableClusters)
  await store.write(Offset.l1Entries, new Uint8Array(view.buffer))
}

export interface Qcow2Options {
  /** Bytes of the disk; that of the backing file where there is one and this is absent. */
  readonly size: number
  readonly clusterBits?: number
  readonly backing?: { readonly file: string; readonly format: string }
}

/** Makes an empty store an image: a version 3 header, a refcount table with one block, an L1 table. */
export async function createQcow2(store: ByteStore, options: Qcow2Options): Promise<void> {
  const { size, clusterBits = 16, backing } = options
  const clusterSize = 2 ** clusterBits
  const file = new TextEncoder().encode(backing?.file ?? '')
  const format = new TextEncoder().encode(backing?.format ?? '')
  if (size <= 0 || size % 512 !== 0) throw bad('qcow2', `a disk of ${size} bytes is not a positive multiple of 512`)
  if (file.length > LONGEST_BACKING_NAME) throw bad('qcow2', 'the name of the backing file is too long')
  const l1Entries = Math.ceil(size / (clusterSize * (clusterSize / 8)))
  const l1Clusters = Math.ceil((l1Entries * 8) / clusterSize)
  // Header, refcount table, refcount block, L1 table.
  const clusters = 3 + l1Clusters
  const bytes = new Uint8Array(clusters * clusterSize)
  const view = new DataView(bytes.buffer)
  view.setUint32(Offset.magic, MAGIC)
  view.setUint32(Offset.version, 3)
  view.setUint32(Offset.clusterBits, clusterBits)
  setU64(view, Offset.size, size)
  view.setUint32(Offset.l1Entries, l1Entries)
  setU64(view, Offset.l1Offset, 3 * clusterSize)
  setU64(view, Offset.refcountTableOffset, clusterSize)
  view.setUint32(Offset.refcountTableClusters, 1)
  view.setUint32(Offset.refcountOrder, 4)
  view.setUint32(Offset.headerLength, VERSION_3_LENGTH)
  if (backing) {
    view.setUint32(VERSION_3_LENGTH, EXTENSION_BACKING_FORMAT)
    view.setUint32(VERSION_3_LENGTH + 4, format.length)
    bytes.set(format, VERSION_3_LENGTH + 8)
    const end = VERSION_3_LENGTH + 8 + roundUp(format.length, 8) + 8
    setU64(view, Offset.backingOffset, end)
    view.setUint32(Offset.backingLength, file.length)
    bytes.set(file, end)
  }
  setU64(view, clusterSize, 2 * clusterSize)
  if (clusters > clusterSize / 2) throw bad('qcow2', 'clusters too small for a disk of this size')
  for (let cluster = 0; cluster < clusters; cluster++) view.setUint16(2 * clusterSize + 2 * cluster, 1)
  await store.write(0, bytes)
  await store.flush()
}
