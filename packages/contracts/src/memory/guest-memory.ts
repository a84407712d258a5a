/** A guest's physical memory as devices, boot protocols and strategies see it. Knows no page table and no CPU mode. */

import type { Access, Gpa, Hpa } from '../base/address.ts'
import type { Saveable } from '../base/snapshot.ts'
import { token } from '../base/token.ts'

/** A stretch of guest-physical address space. Whole frames, sorted, no two overlap. Addresses outside any are not backed. */
export interface MemoryRegion {
  readonly start: Gpa
  /** Bytes, a multiple of the frame size. */
  readonly length: number
  /** `rom` ignores guest writes; boot protocols and firmware loading write it with `writeRom`. */
  readonly kind: 'ram' | 'rom'
}

/** A stretch of guest-physical memory, as a guest describes a buffer. */
export interface MemoryPiece {
  readonly address: number
  readonly length: number
}

/**
 * Guest memory lent to a transfer that goes on beside the guest: a back end reads a disk straight into it, in whichever thread. Its frames stay
 * where they are until `end`, even if the guest gives them back meanwhile.
 */
export interface MemoryLease {
  /** The memory itself (host memory, which is shared), in the order of the pieces; neighbours are joined. */
  readonly views: readonly Uint8Array[]
  /** The transfer is over. Of a lease for writing, watchers and the dirty log hear now. Once. */
  end(): void
}

/**
 * Bounds-checked, dirty-logging, copy-on-write access to one VM's memory. Every device reaches memory through this and
 * nothing else. All values are little-endian; no alignment is asked for; an access may cross frames and pages.
 *
 * What a guest supplies as an address is hostile: an access that is not wholly inside RAM changes nothing and says so in
 * its result (`undefined` or `false`), it never throws. Frames come into being (zeroed) at first touch.
 * The kernel makes one per VM; an IOMMU puts another in front of it with the same interface.
 */
export interface GuestMemory extends Saveable {
  /** Bytes of RAM, all regions together. */
  readonly size: number
  readonly regions: readonly MemoryRegion[]

  /** Whether `[address, address + length)` lies in RAM. False for negative, fractional, wrapping or huge arguments. */
  isRam(address: number, length: number): boolean

  readU8(address: number): number | undefined
  readU16(address: number): number | undefined
  readU32(address: number): number | undefined
  readU64(address: number): bigint | undefined
  /** Fill `into` from guest memory. ROM may be read. */
  readBytes(address: number, into: Uint8Array): boolean

  writeU8(address: number, value: number): boolean
  writeU16(address: number, value: number): boolean
  writeU32(address: number, value: number): boolean
  writeU64(address: number, value: bigint): boolean
  writeBytes(address: number, from: Uint8Array): boolean
  /** `length` times `value`. Zeroing a whole untouched frame allocates nothing. */
  fill(address: number, length: number, value: number): boolean
  /** Lend the pieces, one after the other, to a transfer. Undefined, and nothing lent, if one is not RAM from end to end. */
  lease(pieces: readonly MemoryPiece[], access: 'read' | 'write'): MemoryLease | undefined
  /** Put bytes into ROM (or RAM). For boot protocols, before the guest runs. */
  writeRom(address: number, from: Uint8Array): boolean

  /**
   * Host address of the *byte* at `address`, its frame allocated (and made private, for `write`), or undefined where there is no
   * memory that allows the access. For paging strategies, which map the frame: valid to the end of the frame, and until `PagingStrategy.onMemoryChange`
   * names it. A `write` marks the frame dirty.
   */
  translate(address: number, access: Access): Hpa | undefined
  /** As `translate`, but undefined where no frame was allocated so far: for scanning without bringing frames into being. */
  peek(address: number): Hpa | undefined
  /** Whether a frame may be mapped writable right now: RAM, private, and not awaiting its first write for the dirty log. */
  isWritable(address: number): boolean

  /** Frames that hold something now. */
  readonly residentFrames: number
  /**
   * Take a frame away (balloon, swap). Its content is lost; the next touch gives a zeroed one.
   * Paging strategies have been told by `onMemoryChange` when this returns.
   */
  release(address: number): boolean

  /** Start or stop the dirty log. Starting write-protects what is mapped, so that first writes are seen. */
  setDirtyLog(on: boolean): void
  /** Frames written since the last call (start addresses, ascending), and a fresh log. Empty while off. */
  takeDirty(): Gpa[]
}
export const GuestMemory = token<GuestMemory>('GuestMemory')
