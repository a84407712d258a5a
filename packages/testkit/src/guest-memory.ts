/** A guest memory for tests: every rule of the contract, none of the speed. The kernel's own is in @nonroot/hypervisor. */

import { FRAME_MASK, FRAME_SIZE, gpa, hpa, invariant } from '@nonroot/contracts'
import type { Access, GuestMemory, HostMemory, Hpa, MemoryRegion, PagingStrategy } from '@nonroot/contracts'

export interface TestGuestMemoryOptions {
  readonly hostMemory: HostMemory
  /** Bytes of RAM at 0, or regions. */
  readonly ram: number | readonly MemoryRegion[]
  /** Hears of frames taken away and write protection. May be set later. */
  paging?: Pick<PagingStrategy, 'onMemoryChange'>
}

export function createTestGuestMemory(options: TestGuestMemoryOptions): GuestMemory {
  const { hostMemory: host } = options
  const regions: readonly MemoryRegion[] =
    typeof options.ram === 'number' ? [{ start: gpa(0), length: options.ram, kind: 'ram' }] : options.ram
  const frames = new Map<number, Hpa>()
  let dirty: Set<number> | undefined

  /** Leases of each frame; those that were dropped meanwhile go when the last ends. */
  const leases = new Map<number, number>()
  const dropped = new Set<Hpa>()
  const drop = (frame: Hpa): void => {
    if (leases.has(frame)) dropped.add(frame)
    else host.freeFrame(frame)
  }
  const lend = (at: Hpa, by: 1 | -1): void => {
    const frame = hpa(at - (at % FRAME_SIZE))
    const count = (leases.get(frame) ?? 0) + by
    if (count > 0) leases.set(frame, count)
    else if (leases.delete(frame) && dropped.delete(frame)) host.freeFrame(frame)
  }

  const regionOf = (address: number, length: number): MemoryRegion | undefined =>
    Number.isInteger(address) && Number.isInteger(length) && address >= 0 && length >= 0
      ? regions.find((region) => address >= region.start && address + length <= region.start + region.length)
      : undefined
  const frameOf = (address: number): Hpa => {
    const page = address - (address % FRAME_SIZE)
    let frame = frames.get(page)
    if (frame === undefined) {
      frame = host.allocateFrame()
      invariant(frame !== undefined, 'test host memory is exhausted')
      frames.set(page, frame)
    }
    return frame
  }
  const makePrivate = (address: number): Hpa => {
    const shared = frameOf(address)
    if (host.references(shared) === 1) return shared
    const copy = host.allocateFrame()
    invariant(copy !== undefined, 'test host memory is exhausted')
    host.bytes.copyWithin(copy, shared, shared + FRAME_SIZE)
    frames.set(address - (address % FRAME_SIZE), copy)
    options.paging?.onMemoryChange(gpa(address - (address % FRAME_SIZE)), FRAME_SIZE, 'unmapped')
    drop(shared)
    return copy
  }
  const locate = (address: number, write: boolean): Hpa => {
    const frame = write ? makePrivate(address) : frameOf(address)
    if (write) dirty?.add(address - (address % FRAME_SIZE))
    return hpa(frame + (address & FRAME_MASK))
  }
  /** Calls `piece` for each part of the range that lies in one frame. */
  const each = (
    address: number,
    length: number,
    write: boolean,
    piece: (at: Hpa, from: number, to: number) => void,
  ) => {
    for (let done = 0; done < length;) {
      const size = Math.min(FRAME_SIZE - ((address + done) % FRAME_SIZE), length - done)
      const at = locate(address + done, write)
      piece(at, done, done + size)
      if (write) host.noteWrite(at, size)
      done += size
    }
  }
  const scratch = new DataView(new ArrayBuffer(8))
  const scratchBytes = new Uint8Array(scratch.buffer)
  const read = (address: number, length: number): boolean => memory.readBytes(address, scratchBytes.subarray(0, length))
  const write = (address: number, length: number): boolean =>
    memory.writeBytes(address, scratchBytes.subarray(0, length))
  const put = (address: number, from: Uint8Array): boolean => {
    each(address, from.length, true, (at, start, end) => host.bytes.set(from.subarray(start, end), at))
    return true
  }

  const memory: GuestMemory = {
    size: regions.reduce((sum, region) => sum + (region.kind === 'ram' ? region.length : 0), 0),
    regions,
    isRam: (address, length) => regionOf(address, length)?.kind === 'ram',
    readU8: (address) => (read(address, 1) ? scratch.getUint8(0) : undefined),
    readU16: (address) => (read(address, 2) ? scratch.getUint16(0, true) : undefined),
    readU32: (address) => (read(address, 4) ? scratch.getUint32(0, true) : undefined),
    readU64: (address) => (read(address, 8) ? scratch.getBigUint64(0, true) : undefined),
    readBytes(address, into) {
      if (!regionOf(address, into.length)) return false
      each(address, into.length, false, (at, start, end) => into.set(host.bytes.subarray(at, at + end - start), start))
      return true
    },
    writeU8: (address, value) => (scratch.setUint8(0, value), write(address, 1)),
    writeU16: (address, value) => (scratch.setUint16(0, value, true), write(address, 2)),
    writeU32: (address, value) => (scratch.setUint32(0, value, true), write(address, 4)),
    writeU64: (address, value) => (scratch.setBigUint64(0, value, true), write(address, 8)),
    writeBytes: (address, from) => memory.isRam(address, from.length) && put(address, from),
    fill: (address, length, value) => memory.isRam(address, length) && put(address, new Uint8Array(length).fill(value)),
    lease(pieces, leaseAccess) {
      if (!pieces.every(({ address, length }) => memory.isRam(address, length))) return undefined
      const lent: { at: Hpa; size: number; address: number }[] = []
      for (const { address, length } of pieces) {
        for (let done = 0; done < length;) {
          const size = Math.min(FRAME_SIZE - ((address + done) % FRAME_SIZE), length - done)
          lent.push({ at: locate(address + done, leaseAccess === 'write'), size, address: address + done })
          done += size
        }
      }
      for (const { at } of lent) lend(at, 1)
      return {
        views: lent.map(({ at, size }) => host.bytes.subarray(at, at + size)),
        end() {
          for (const { at, size, address } of lent) {
            if (leaseAccess === 'write') {
              host.noteWrite(at, size)
              dirty?.add(address - (address % FRAME_SIZE))
            }
            lend(at, -1)
          }
        },
      }
    },
    writeRom: (address, from) => regionOf(address, from.length) !== undefined && put(address, from),
    translate(address, access: Access) {
      const region = regionOf(address, 1)
      if (!region || (access === 'write' && region.kind === 'rom')) return undefined
      return locate(address, access === 'write')
    },
    peek(address) {
      const frame = frames.get(address - (address % FRAME_SIZE))
      return frame === undefined ? undefined : hpa(frame + (address & FRAME_MASK))
    },
    isWritable(address) {
      const frame = frames.get(address - (address % FRAME_SIZE))
      if (frame === undefined || !memory.isRam(address, 1) || host.references(frame) > 1) return false
      return !dirty || dirty.has(address - (address % FRAME_SIZE))
    },
    get residentFrames() {
      return frames.size
    },
    release(address) {
      const page = address - (address % FRAME_SIZE)
      const frame = frames.get(page)
      if (frame === undefined) return false
      options.paging?.onMemoryChange(gpa(page), FRAME_SIZE, 'unmapped')
      frames.delete(page)
      drop(frame)
      return true
    },
    setDirtyLog(on) {
      dirty = on ? new Set() : undefined
      if (on) for (const page of frames.keys()) options.paging?.onMemoryChange(gpa(page), FRAME_SIZE, 'writeProtected')
    },
    takeDirty() {
      const pages = [...(dirty ?? [])].sort((left, right) => left - right)
      dirty?.clear()
      for (const page of pages) options.paging?.onMemoryChange(gpa(page), FRAME_SIZE, 'writeProtected')
      return pages.map(gpa)
    },
    save: () => ({
      type: 'guest-memory',
      version: 1,
      data: { frames: [...frames].map(([page, frame]) => [page, host.bytes.slice(frame, frame + FRAME_SIZE)]) },
    }),
    restore(snapshot) {
      for (const page of frames.keys()) memory.release(page)
      for (const [page, bytes] of snapshot.data['frames'] as [number, Uint8Array][]) put(page, bytes)
    },
  }
  return memory
}
