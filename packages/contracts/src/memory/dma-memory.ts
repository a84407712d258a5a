/** A guest's memory as one device sees it: independent of frames, page tables and CPU modes. */

/** A stretch of guest-physical memory, as a guest describes a buffer. */
export interface MemoryPiece {
  readonly address: number
  readonly length: number
}

/**
 * Guest memory lent to a transfer that runs beside the guest: a back end reads a disk directly into it, in any thread. Its frames cannot move until
 * `end`, even if the guest gives them back meanwhile.
 */
export interface MemoryLease {
  /** The memory itself (host memory, which is shared), in the order of the pieces; neighbours are joined. The views of a lease for reading must not be written. */
  readonly views: readonly Uint8Array[]
  /** Ends the transfer; call it once. A lease for writing notifies watchers and marks the dirty log now. */
  end(): void
}

/**
 * Bounds-checked, dirty-logging, copy-on-write access to one VM's memory, and the only access that a device has. All values are little-endian; no
 * alignment is required; an access may cross frames and pages. Each device has its own (`DeviceContext.dma`), with its own addresses: an IOMMU puts
 * another with the same interface in front of it.
 *
 * What a guest supplies as an address is hostile: an access that is not wholly inside RAM changes nothing and says so in
 * its result (`undefined` or `false`), it never throws. So does an access for which the host has no free frame; the VM ends then.
 * A page gets its frame, zeroed, when it is first written or lent.
 */
export interface DmaMemory {
  /** Whether `[address, address + length)` lies in RAM. False for negative, fractional, wrapping or huge arguments. */
  isRam(address: number, length: number): boolean

  readU8(address: number): number | undefined
  readU16(address: number): number | undefined
  readU32(address: number): number | undefined
  readU64(address: number): bigint | undefined
  /** Fills `into` from guest memory. ROM may be read. */
  readBytes(address: number, into: Uint8Array): boolean

  writeU8(address: number, value: number): boolean
  writeU16(address: number, value: number): boolean
  writeU32(address: number, value: number): boolean
  writeU64(address: number, value: bigint): boolean
  writeBytes(address: number, from: Uint8Array): boolean
  /** `length` times `value`. Zeroing a whole untouched frame allocates nothing. */
  fill(address: number, length: number, value: number): boolean
  /** Lends the pieces, in order, to a transfer. Undefined, and nothing lent, if one is not entirely RAM. */
  lease(pieces: readonly MemoryPiece[], access: 'read' | 'write'): MemoryLease | undefined
  /**
   * The memory behind the IOMMU, by guest-physical address: for devices whose drivers are specified to ignore it (virtio without
   * VIRTIO_F_ACCESS_PLATFORM). Absent: no IOMMU stands before the device.
   */
  readonly untranslated?: DmaMemory
}

/** The device that accesses memory, for an IOMMU. */
export interface DmaRequester {
  /** The device's name in the VM. */
  readonly name: string
  /** `bus << 8 | device << 3 | function`, once the device has become a PCI function; undefined before, and for other devices. */
  readonly requesterId: number | undefined
}

/** Between devices and memory: an I/O model that has one is called for each device that is created after it. */
export interface Iommu {
  /** The device's view of `memory`, which is all of the guest's memory. */
  attach(requester: DmaRequester, memory: DmaMemory): DmaMemory
  /** Stands in front of the interrupt controller: `deliver`s the message that it stands for, or none. `destination` as in `MessageInterrupts.send`. */
  interrupt?(
    requester: number | undefined,
    address: number,
    data: number,
    deliver: (address: number, data: number, destination?: number) => void,
  ): void
}
