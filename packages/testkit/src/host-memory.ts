/** A small host memory for tests. The kernel's own is in @nonroot/hypervisor. */

import { FRAME_SHIFT, FRAME_SIZE, hpa, invariant } from '@nonroot/contracts'
import type { HostMemory, Hpa } from '@nonroot/contracts'

/** `frames` frames of real shared WebAssembly memory. Frame 0 is never handed out, so that 0 shows as a mistake; it is also the zero frame. */
export function createTestHostMemory(frames = 1024): HostMemory {
  const pages = Math.ceil((frames * FRAME_SIZE) / 65536)
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
  const bytes = new Uint8Array(memory.buffer)
  const owners = new Uint16Array(frames)
  const codeHolders = new Uint16Array(new SharedArrayBuffer(frames * 2))
  const watchers = new Set<(address: Hpa, length: number) => void>()
  owners[0] = 1
  let apart = 0
  /** No frame below it is free: most machines take frames one by one, and give few back. */
  let firstFree = 1
  /** Frames that somebody had: fresh memory is zero, and costs nothing until it is touched. */
  const wasUsed = new Uint8Array(frames)
  const isFree = (frame: number): boolean => owners[frame] === 0

  const freeRun = (count: number, align: number): number | undefined => {
    while (firstFree < frames && !isFree(firstFree)) firstFree++
    for (let start = Math.ceil(firstFree / align) * align; start + count <= frames; start += align) {
      let end = start
      while (end < start + count && isFree(end)) end++
      if (end === start + count) return start
    }
    return undefined
  }
  const isOwned = (frame: Hpa): boolean => frame > 0 && frame % FRAME_SIZE === 0 && owners[frame / FRAME_SIZE]! > 0
  const noteWrite = (address: Hpa, length: number): void => {
    const last = Math.floor((address + length - 1) / FRAME_SIZE)
    if (codeHolders.subarray(address >>> FRAME_SHIFT, last + 1).every((holders) => holders === 0)) return
    watchers.forEach((watcher) => watcher(address, length))
  }

  return {
    memory,
    bytes,
    view: new DataView(memory.buffer),
    words: new Int32Array(memory.buffer),
    totalFrames: frames,
    zeroFrame: hpa(0),
    codeHolders,
    get freeFrames() {
      return owners.reduce((free, owner) => free + (owner === 0 ? 1 : 0), 0)
    },
    get guestFrames() {
      return frames - apart
    },
    get freeGuestFrames() {
      return this.freeFrames
    },
    get apartFrames() {
      return apart
    },
    setApart: (count) => void (apart += count),
    allocateFrame() {
      return this.allocateFrames(1)
    },
    allocateFrames(count, alignFrames = 1) {
      const first = freeRun(count, alignFrames)
      if (first === undefined) return undefined
      owners.fill(1, first, first + count)
      const start = hpa(first * FRAME_SIZE)
      for (let frame = first; frame < first + count; frame++)
        if (wasUsed[frame]) bytes.fill(0, frame * FRAME_SIZE, (frame + 1) * FRAME_SIZE)
      wasUsed.fill(1, first, first + count)
      return start
    },
    shareFrame(frame) {
      invariant(isOwned(frame), 'sharing a free frame')
      owners[frame >>> FRAME_SHIFT]!++
    },
    references: (frame) => owners[frame >>> FRAME_SHIFT]!,
    freeFrame(frame) {
      invariant(isOwned(frame), 'freeing a free frame')
      const number = frame >>> FRAME_SHIFT
      owners[number]!--
      if (isFree(number)) firstFree = Math.min(firstFree, number)
      noteWrite(frame, FRAME_SIZE)
    },
    noteWrite,
    watchWrites(watcher) {
      watchers.add(watcher)
      return () => watchers.delete(watcher)
    },
    close() {},
  }
}
