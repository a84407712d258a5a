/** Page tables that hold machine addresses and change only by call: what a paging strategy with `directPaging` offers to guest ABI and CPU mode. */

import type { Gpa, Hpa } from '../base/address.ts'

/**
 * What a machine frame is used as. A frame has one use at a time, counted; a table's level is its number. `writable` excludes tables and descriptors: that
 * no guest can write what the processor trusts follows from it.
 */
export const FRAME_USE = { none: 0, level1: 1, level2: 2, level3: 3, level4: 4, descriptors: 5, writable: 6 } as const
export type FrameUse = (typeof FRAME_USE)[keyof typeof FRAME_USE]
export type TableLevel = 1 | 2 | 3 | 4

/**
 * `invalid`: the request breaks a rule. `busy`: the frame has another use. `denied`: not this domain's to change. `noMemory`: the host has no frame.
 * `unsupported`: legal, not offered here. In none but `ok` has anything changed.
 */
export type TableStatus = 'ok' | 'invalid' | 'busy' | 'denied' | 'noMemory' | 'unsupported'

export interface EntryOptions {
  /** Keep accessed and dirty flags of the entry that is replaced. */
  readonly keepAccessed?: boolean
}

/** Where a grant is mapped: by the entry of a linear address under the vCPU's kernel root, or by the entry at a machine address. */
export type GrantPlace = { readonly linear: bigint } | { readonly entry: number }

export interface GrantEntry {
  readonly isWritable: boolean
  /** User programs reach the page, too. */
  readonly isUser: boolean
  /** Bits 11:9 of the entry. */
  readonly available: number
}

/** Machine frames of one domain and their uses, its tables and descriptor tables. Entries are pairs of 32-bit halves; machine addresses are numbers. */
export interface TableCalls {
  /** Frames that exist in the machine: the length of the machine-to-physical map. */
  readonly machineFrames: number
  /** Where the guest reads that map, 8 bytes a frame. */
  readonly machineToPhysical: { readonly start: bigint; readonly end: bigint; readonly firstFrame: number }
  /** Linear address of a vCPU's global descriptor table, and of its local one. */
  descriptorTable(vcpu: number): bigint
  localDescriptorTable(vcpu: number): bigint

  /** All of the domain's memory is there, no frame has a use. Gives the machine frames in order of the guest's frame numbers. */
  populate(): Readonly<Uint32Array>
  /** Guest-physical address that stands for a machine frame of the domain: for devices. Undefined: it is none of its own. */
  addressOf(frame: number): Gpa | undefined
  /** Host address of a machine address that the domain owns. */
  hostAddress(machine: number): Hpa | undefined
  /** A frame of the hypervisor's that the guest may map, writable. */
  shareFrame(frame: Hpa): number

  writeEntry(vcpu: number, machine: number, low: number, high: number, options?: EntryOptions): TableStatus
  /** The entry of the last level that maps `address` under the vCPU's kernel root. */
  writeLinear(vcpu: number, address: bigint, low: number, high: number): TableStatus
  /** Machine address of the entry of the last level that a write to `address` would change. Undefined: it is no write to such a table. */
  tableEntryAt(vcpu: number, address: bigint): number | undefined
  setMachineToPhysical(frame: number, physical: bigint): TableStatus
  pin(level: TableLevel, frame: number): TableStatus
  unpin(frame: number): TableStatus
  /** 0 for `user`: there is none. */
  setRoot(vcpu: number, which: 'kernel' | 'user', frame: number): TableStatus
  /** Machine frame of a root, 0 none. */
  root(vcpu: number, which: 'kernel' | 'user'): number
  setDescriptorFrames(vcpu: number, frames: readonly number[], entries: number): TableStatus
  writeDescriptor(machine: number, low: number, high: number): TableStatus
  setLocalDescriptors(vcpu: number, address: bigint, entries: number): TableStatus
  clearFrame(frame: number): TableStatus
  copyFrame(to: number, from: number): TableStatus

  /** Maps a frame by an entry that only `unmapGrant` changes, as long as its table is one. */
  mapGrant(vcpu: number, place: GrantPlace, frame: number, entry: GrantEntry): TableStatus
  /** Removes the mapping of that frame, made as writable or not; or moves the entry of another linear address there. No translation is left. */
  unmapGrant(vcpu: number, place: GrantPlace, frame: number, isWritable: boolean, replacement?: bigint): TableStatus
  /** A frame that nothing refers to loses its use and all translations: to be somebody else's. */
  steal(frame: number): TableStatus

  /** A reference that keeps the frame in place, and (unless `isWritable` is false) writable by others than its owner: rings, vcpu_info, grants. */
  hold(frame: number, isWritable?: boolean): TableStatus
  release(frame: number, isWritable?: boolean): void
  /** Give a frame back: it goes when nothing uses it. */
  giveBack(frame: number): TableStatus
  /**
   * The domain has ended and nothing of it is held from outside: drops roots, descriptor tables and pins. Gives how many frames are then still referred to
   * or used: none, unless a count went wrong.
   */
  settle(): number
  /** A fresh frame, or undefined. */
  takeFrame(): number | undefined
  /** Frames of the domain now, and at most. */
  readonly frameCount: number
  readonly mostFrames: number

  flush(vcpus: readonly number[] | 'all', address: bigint | undefined): void
}
