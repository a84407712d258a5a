/** Routes a guest's port and MMIO accesses to devices. Independent of device types. @hot */

import { IO_DEFERRED, IO_DEFERRED_64, NonrootError } from '@nonroot/contracts'
import type { Counter, Gpa, IoBus, IoHandler, IoRegion, IoSize, Metrics } from '@nonroot/contracts'
import { AddressSpace } from './address-space.ts'
import { ClaimedRegion } from './io-region.ts'
import { PortSpace } from './port-space.ts'

const onesOf = (size: IoSize): number => (size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff)
const ONES_64 = 0xffff_ffff_ffff_ffffn

export class KernelIoBus implements IoBus {
  readonly #ports = new PortSpace()
  readonly #addresses = new AddressSpace()
  readonly #portReads: Counter
  readonly #portWrites: Counter
  readonly #mmioReads: Counter
  readonly #mmioWrites: Counter
  readonly #unclaimed: Counter
  #current: ClaimedRegion | undefined

  constructor(metrics: Metrics) {
    this.#portReads = metrics.counter('portReads', 'reads of I/O ports')
    this.#portWrites = metrics.counter('portWrites', 'writes of I/O ports')
    this.#mmioReads = metrics.counter('mmioReads', 'reads of memory-mapped registers')
    this.#mmioWrites = metrics.counter('mmioWrites', 'writes of memory-mapped registers')
    this.#unclaimed = metrics.counter('unclaimed', 'accesses that no device answers')
  }

  /** The device accessed last, to be named if something is thrown. */
  get currentOwner(): string | undefined {
    return (this.#current ?? this.#ports.current)?.owner
  }

  // Claims

  claimPorts(owner: string, base: number, length: number, handler: IoHandler, accesses: Counter): IoRegion {
    if (!isRange(base, length) || base + length > 0x10000)
      throw badClaim(owner, `ports ${hex(base)} + ${length} are not within 0x0..0xffff`)
    return this.#claim(this.#ports, owner, 'ports', base, length, handler, accesses)
  }

  claimAddresses(owner: string, base: number, length: number, handler: IoHandler, accesses: Counter): IoRegion {
    if (!isRange(base, length)) throw badClaim(owner, `addresses ${hex(base)} + ${length} are no range`)
    return this.#claim(this.#addresses, owner, 'addresses', base, length, handler, accesses)
  }

  /** The highest free range in a window, aligned to its size (rounded up to a power of two) and to a frame. */
  findFreeAddresses(length: number, start: number, end: number): number | undefined {
    const step = 2 ** Math.ceil(Math.log2(Math.max(length, 4096)))
    for (let base = Math.floor((end - length) / step) * step; base >= start; base -= step) {
      if (this.isFree(base, length)) return base
    }
    return undefined
  }

  /** No device answers in the range. */
  isFree(base: number, length: number): boolean {
    return !this.#addresses.regions.some((region) => region.overlaps(base, length))
  }

  /** The device that answers at an address; undefined: none. */
  ownerAt(address: number): string | undefined {
    return this.#addresses.find(address)?.owner
  }

  #claim(
    space: PortSpace | AddressSpace,
    owner: string,
    what: string,
    base: number,
    length: number,
    handler: IoHandler,
    accesses: Counter,
  ): IoRegion {
    const other = space.regions.find((region) => region.overlaps(base, length))
    if (other) {
      const range = (from: number, size: number): string => `${hex(from)}..${hex(from + size - 1)}`
      throw badClaim(
        owner,
        `${what} ${range(base, length)} collide with ${other.owner}, which has ${range(other.base, other.length)}`,
      )
    }
    const region = new ClaimedRegion(owner, base, length, handler, accesses, () => space.update())
    space.regions.push(region)
    space.update()
    return region
  }

  /** No device answers. */
  #miss(): void {
    this.#unclaimed.value++
    this.#current = this.#ports.current = undefined
  }

  // Ports

  readPort(port: number, size: IoSize): number {
    this.#portReads.value++
    this.#current = undefined
    const value = this.#ports.read(port, size)
    if (value !== undefined) return value
    this.#miss()
    return onesOf(size)
  }

  writePort(port: number, size: IoSize, value: number): boolean {
    this.#portWrites.value++
    this.#current = undefined
    const done = this.#ports.write(port, size, value)
    if (done !== undefined) return done
    this.#miss()
    return true
  }

  // MMIO

  readMmio(address: Gpa, size: IoSize): number {
    this.#mmioReads.value++
    return this.#read(address, size)
  }

  #read(address: number, size: IoSize): number {
    const region = this.#addresses.find(address)
    if (region === undefined) {
      this.#miss()
      return onesOf(size)
    }
    const offset = address - region.base
    // Registers are at most doublewords: accesses that cross one, or the device's end, are split into bytes.
    if ((address & 3) + size > 4 || offset + size > region.length) return this.#readBytes(address, size)
    region.accesses.value++
    this.#current = region
    return region.handler.read(offset, size)
  }

  #readBytes(address: number, size: IoSize): number {
    let value = 0
    for (let byte = 0; byte < size; byte++) {
      const one = this.#read(address + byte, 1)
      if (one === IO_DEFERRED) return IO_DEFERRED
      value |= (one & 0xff) << (8 * byte)
    }
    return value >>> 0
  }

  writeMmio(address: Gpa, size: IoSize, value: number): boolean {
    this.#mmioWrites.value++
    return this.#write(address, size, value)
  }

  #write(address: number, size: IoSize, value: number): boolean {
    const region = this.#addresses.find(address)
    if (region === undefined) {
      this.#miss()
      return true
    }
    const offset = address - region.base
    if ((address & 3) + size > 4 || offset + size > region.length) return this.#writeBytes(address, size, value)
    region.accesses.value++
    this.#current = region
    return region.handler.write(offset, size, value) !== false
  }

  #writeBytes(address: number, size: IoSize, value: number): boolean {
    for (let byte = 0; byte < size; byte++) {
      if (!this.#write(address + byte, 1, (value >>> (8 * byte)) & 0xff)) return false
    }
    return true
  }

  readMmio64(address: Gpa): bigint {
    this.#mmioReads.value++
    const region = this.#addresses.find(address)
    if (region === undefined) {
      this.#miss()
      return ONES_64
    }
    const offset = address - region.base
    if (region.handler.read64 && offset + 8 <= region.length) {
      region.accesses.value++
      this.#current = region
      return region.handler.read64(offset)
    }
    const low = this.#read(address, 4)
    const high = low === IO_DEFERRED ? IO_DEFERRED : this.#read(address + 4, 4)
    return high === IO_DEFERRED ? IO_DEFERRED_64 : (BigInt(high) << 32n) | BigInt(low)
  }

  writeMmio64(address: Gpa, value: bigint): boolean {
    this.#mmioWrites.value++
    const region = this.#addresses.find(address)
    if (region === undefined) {
      this.#miss()
      return true
    }
    const offset = address - region.base
    if (region.handler.write64 && offset + 8 <= region.length) {
      region.accesses.value++
      this.#current = region
      return region.handler.write64(offset, value) !== false
    }
    return this.#write(address, 4, Number(value & 0xffff_ffffn)) && this.#write(address + 4, 4, Number(value >> 32n))
  }
}

const isRange = (base: number, length: number): boolean =>
  Number.isSafeInteger(base) && Number.isSafeInteger(length) && base >= 0 && length > 0

const hex = (value: number): string => `0x${value.toString(16)}`

const badClaim = (owner: string, message: string): NonrootError =>
  new NonrootError({ code: 'device.create', message: `${owner}: ${message}`, thing: owner })
