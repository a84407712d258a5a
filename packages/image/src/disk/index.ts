/** Disks: formats over bytes, and disks in memory. Independent of files. */
export { diskEntry, fileEntry, type DiskEntries, type DiskEntry, type EntryKind } from './entry.ts'
export { formatUuid, makeExt4, randomUuid, type Ext4Made, type MakeExt4Options } from './ext4/make.ts'
export { Ext4Reader } from './ext4/reader.ts'
export { makeDisk, type MakeDiskOptions } from './make.ts'
export { createMemoryDisk, createMemoryStore, createOverlay, type MemoryStore } from './memory.ts'
export { createQcow2, type Qcow2Options } from './qcow2/header.ts'
export { qcow2 } from './qcow2/image.ts'

import { createMemoryDisk, createOverlay } from './memory.ts'
import { qcow2 } from './qcow2/image.ts'

/** For `createNodeBackends({ block: diskParts })`. */
export const diskParts = { formats: [qcow2], overlay: createOverlay, memory: createMemoryDisk }
