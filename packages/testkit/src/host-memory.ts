/** A small host memory for tests. The kernel's own is in @nonroot/hypervisor. */

import { FRAME_SHIFT, FRAME_SIZE, hpa, invariant } from '@nonroot/contracts'
import type { HostMemory, Hpa } from '@nonroot/contracts'

/** `frames` frames of real shared WebAssembly memory. Frame 0 is never handed out, so that 0 shows as a mistake. */
export function createTestHostMemory(frames = 1024): HostMemory {
  const pages = Math.ceil((frames * FRAME_SIZE) / 65536)
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
  const bytes = new Uint8Array(memory.buffer)
  const owners = new Uint16Array(frames)
  const watchers = new Set<(address: Hpa, length: number) => void>()
  owners[0] = 1

  const freeRun = (count: number, align: number): number | undefined => {
    for (let start = align; start + count <= frames; start += align) {
      if (owners.subarray(start, start + count).every((owner) => owner === 0)) return start
    }
    return undefined
  }
  const noteWrite = (address: Hpa, length: number): void => watchers.forEach((watcher) => watcher(address, length))

  return {
    memory,
    bytes,
    view: new DataView(memory.buffer),
    words: new Int32Array(memory.buffer),
    totalFrames: frames,
    get freeFrames() {
      return owners.reduce((free, owner) => free + (owner === 0 ? 1 : 0), 0)
    },
    allocateFrame() {
      return this.allocateFrames(1)
    },
    allocateFrames(count, alignFrames = 1) {
      const first = freeRun(count, alignFrames)
      if (first === undefined) return undefined
      owners.fill(1, first, first + count)
      const start = hpa(first * FRAME_SIZE)
      bytes.fill(0, start, start + count * FRAME_SIZE)
      return start
    },
    shareFrame(frame) {
      invariant(owners[frame >>> FRAME_SHIFT]! > 0, 'sharing a free frame')
      owners[frame >>> FRAME_SHIFT]!++
    },
    references: (frame) => owners[frame >>> FRAME_SHIFT]!,
    freeFrame(frame) {
      invariant(owners[frame >>> FRAME_SHIFT]! > 0, 'freeing a free frame')
      if (--owners[frame >>> FRAME_SHIFT]! === 0) noteWrite(frame, FRAME_SIZE)
    },
    noteWrite,
    watchWrites(watcher) {
      watchers.add(watcher)
      return () => watchers.delete(watcher)
    },
  }
}
