/** A guest memory for tests: reads and writes over the frames of guest-frames.ts. The kernel's own is in @nonroot/hypervisor. */

import { FRAME_SIZE } from '@nonroot/contracts'
import type { GuestFrames, GuestMemory, Hpa, MemoryLease, MemoryPiece } from '@nonroot/contracts'
import { TestFrames, type TestGuestMemoryOptions } from './guest-frames.ts'

export type { TestGuestMemoryOptions } from './guest-frames.ts'

export const createTestGuestMemory = (options: TestGuestMemoryOptions): GuestMemory & GuestFrames =>
  new TestGuestMemory(options)

class TestGuestMemory extends TestFrames implements GuestMemory {
  readonly #host: TestGuestMemoryOptions['hostMemory']
  readonly #value = new DataView(new ArrayBuffer(8))

  constructor(options: TestGuestMemoryOptions) {
    super(options)
    this.#host = options.hostMemory
  }

  /** Calls `piece` for each part of the range that lies in one frame. False: one has none. */
  #each(address: number, length: number, write: boolean, piece: (at: Hpa, from: number, to: number) => void): boolean {
    for (let done = 0; done < length;) {
      const size = Math.min(FRAME_SIZE - ((address + done) % FRAME_SIZE), length - done)
      const at = this.locate(address + done, write, write && size === FRAME_SIZE)
      if (at === undefined) return false
      piece(at, done, done + size)
      if (write) this.#host.noteWrite(at, size)
      done += size
    }
    return true
  }
  #put(address: number, from: Uint8Array): boolean {
    return this.#each(address, from.length, true, (at, start, end) =>
      this.#host.bytes.set(from.subarray(start, end), at),
    )
  }
  #read(address: number, length: number): DataView | undefined {
    return this.readBytes(address, new Uint8Array(this.#value.buffer, 0, length)) ? this.#value : undefined
  }
  #write(address: number, length: number): boolean {
    return this.writeBytes(address, new Uint8Array(this.#value.buffer, 0, length))
  }

  readU8(address: number): number | undefined {
    return this.#read(address, 1)?.getUint8(0)
  }
  readU16(address: number): number | undefined {
    return this.#read(address, 2)?.getUint16(0, true)
  }
  readU32(address: number): number | undefined {
    return this.#read(address, 4)?.getUint32(0, true)
  }
  readU64(address: number): bigint | undefined {
    return this.#read(address, 8)?.getBigUint64(0, true)
  }
  readBytes(address: number, into: Uint8Array): boolean {
    const { bytes } = this.#host
    if (!this.regionOf(address, into.length)) return false
    return this.#each(address, into.length, false, (at, start, end) =>
      into.set(bytes.subarray(at, at + end - start), start),
    )
  }

  writeU8(address: number, value: number): boolean {
    this.#value.setUint8(0, value)
    return this.#write(address, 1)
  }
  writeU16(address: number, value: number): boolean {
    this.#value.setUint16(0, value, true)
    return this.#write(address, 2)
  }
  writeU32(address: number, value: number): boolean {
    this.#value.setUint32(0, value, true)
    return this.#write(address, 4)
  }
  writeU64(address: number, value: bigint): boolean {
    this.#value.setBigUint64(0, value, true)
    return this.#write(address, 8)
  }
  writeBytes(address: number, from: Uint8Array): boolean {
    return this.isRam(address, from.length) && this.#put(address, from)
  }
  writeRom(address: number, from: Uint8Array): boolean {
    return this.regionOf(address, from.length) !== undefined && this.#put(address, from)
  }
  fill(address: number, length: number, value: number): boolean {
    if (!this.isRam(address, length)) return false
    for (let done = 0; done < length;) {
      const size = Math.min(FRAME_SIZE - ((address + done) % FRAME_SIZE), length - done)
      const isZero = value === 0 && this.state(address + done)!.kind === 'absent'
      if (!isZero && !this.#put(address + done, new Uint8Array(size).fill(value))) return false
      done += size
    }
    return true
  }

  lease(pieces: readonly MemoryPiece[], access: 'read' | 'write'): MemoryLease | undefined {
    if (!pieces.every(({ address, length }) => this.isRam(address, length))) return undefined
    const write = access === 'write'
    const lent: { at: Hpa; size: number; address: number }[] = []
    for (const { address, length } of pieces) {
      for (let done = 0; done < length;) {
        const size = Math.min(FRAME_SIZE - ((address + done) % FRAME_SIZE), length - done)
        // A transfer counts on the frame that it sees.
        const at = this.translate(address + done, access)
        const located =
          at === 'wait' || at === undefined
            ? this.locate(address + done, write || this.state(address + done)!.kind === 'absent')
            : at
        if (located === undefined) return undefined
        lent.push({ at: located, size, address: address + done })
        done += size
      }
    }
    for (const { at } of lent) this.lend(at, 1)
    return {
      views: lent.map(({ at, size }) => this.#host.bytes.subarray(at, at + size)),
      end: () => {
        for (const { at, size, address } of lent.splice(0)) {
          if (write) {
            this.#host.noteWrite(at, size)
            this.markDirty(address)
          }
          this.lend(at, -1)
        }
      },
    }
  }
}
