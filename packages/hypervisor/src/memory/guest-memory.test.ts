import { describe, expect, it, vi } from 'vitest'
import { FRAME_SIZE, gpa, hpa } from '@nonroot/contracts'
import type { Hpa } from '@nonroot/contracts'
import { DemandGuestMemory } from './guest-memory.ts'
import { createHostMemory } from './host-memory.ts'
import { FOUR_GIB, LOW_END, pcMemoryMap } from './memory-map.ts'

const MIB = 2 ** 20
const page = (address: number) => ({ address: gpa(address), length: FRAME_SIZE })
const create = (bytes = 4 * MIB, hostBytes = 16 * MIB, firmware = 0, largeRuns = false) => {
  const hostMemory = createHostMemory(hostBytes)
  return { hostMemory, memory: new DemandGuestMemory({ hostMemory, regions: pcMemoryMap(bytes, firmware), largeRuns }) }
}

describe('the memory map of a PC', () => {
  it.each([
    {
      bytes: MIB,
      regions: [
        [0, 0xa0000],
        [0xc0000, 0x40000],
      ],
    },
    {
      bytes: LOW_END,
      regions: [
        [0, 0xa0000],
        [0xc0000, LOW_END - 0xc0000],
      ],
    },
    {
      bytes: LOW_END + MIB,
      regions: [
        [0, 0xa0000],
        [0xc0000, LOW_END - 0xc0000],
        [FOUR_GIB, MIB],
      ],
    },
  ])('$bytes bytes', ({ bytes, regions }) => {
    expect(pcMemoryMap(bytes).map(({ start, length }) => [start, length])).toEqual(regions)
  })
  it('has ROM below 4 GiB for firmware', () => {
    expect(pcMemoryMap(MIB, 5000).at(-1)).toEqual({ start: FOUR_GIB - 8192, length: 8192, kind: 'rom' })
  })
})

describe('guest memory', () => {
  it('is zero, little-endian, and crosses frames', () => {
    const { memory } = create()
    expect(memory.readU64(0x1ffc)).toBe(0n)
    expect(memory.writeU64(0x1ffc, 0x1122_3344_5566_7788n)).toBe(true)
    expect(memory.readU64(0x1ffc)).toBe(0x1122_3344_5566_7788n)
    expect(memory.readU32(0x1ffe)).toBe(0x3344_5566)
    expect(memory.readU16(0x1fff)).toBe(0x4455)
    expect(memory.readU8(0x2003)).toBe(0x11)
    expect(memory.writeU32(0x2ffe, 0xdead_beef)).toBe(true)
    expect(memory.writeU16(0x3fff, 0xabcd)).toBe(true)
    expect([memory.readU32(0x2ffe), memory.readU16(0x3fff)]).toEqual([0xdead_beef, 0xabcd])
    const bytes = Uint8Array.from({ length: 10000 }, (_, index) => index)
    expect(memory.writeBytes(0x10ffd, bytes)).toBe(true)
    const back = new Uint8Array(10000)
    expect(memory.readBytes(0x10ffd, back)).toBe(true)
    expect(back).toEqual(bytes)
  })

  it.each([-1, -0.5, 0.5, NaN, Infinity, 2 ** 53, 2 ** 60, 0xa0000, 0xbffff, 4 * MIB, FOUR_GIB, -(2 ** 40)])(
    'refuses %d without a throw',
    (address) => {
      const { memory, hostMemory } = create()
      const before = hostMemory.freeFrames
      expect(memory.isRam(address, 1)).toBe(false)
      expect(memory.readU8(address)).toBeUndefined()
      expect(memory.readU64(address)).toBeUndefined()
      expect(memory.writeU8(address, 1)).toBe(false)
      expect(memory.writeU32(address, 1)).toBe(false)
      expect(memory.writeU64(address, 1n)).toBe(false)
      expect(memory.readBytes(address, new Uint8Array(2))).toBe(false)
      expect(memory.writeBytes(address, new Uint8Array(2))).toBe(false)
      expect(memory.fill(address, 1, 0)).toBe(false)
      expect(memory.translate(address, 'write')).toBeUndefined()
      expect(memory.peek(address)).toBeUndefined()
      expect(memory.isWritable(address)).toBe(false)
      expect(memory.release([{ address: gpa(address), length: FRAME_SIZE }])).toBe(0)
      expect(hostMemory.freeFrames).toBe(before)
    },
  )

  it('changes nothing where an access hangs over the end', () => {
    const { memory } = create()
    expect(memory.writeU32(4 * MIB - 2, 0xffff_ffff)).toBe(false)
    expect(memory.writeU64(0x9fffc, 1n)).toBe(false)
    expect(memory.readU16(4 * MIB - 2)).toBe(0)
    expect(memory.isRam(0, 2 ** 53)).toBe(false)
    expect(memory.isRam(0, -1)).toBe(false)
    expect(memory.fill(0, Infinity, 1)).toBe(false)
  })

  it('brings frames into being at first touch, and none for a fill with zero', () => {
    const { memory } = create()
    expect(memory.peek(0x5000)).toBeUndefined()
    expect(memory.fill(0x5000, 3 * FRAME_SIZE, 0)).toBe(true)
    expect(memory.residentFrames).toBe(0)
    const at = memory.translate(0x5123, 'read') as Hpa
    expect(at & 0xfff).toBe(0x123)
    expect(memory.peek(0x5000)).toBe(at - 0x123)
    expect(memory.residentFrames).toBe(1)
  })

  it('takes whole runs of 2 MiB where it can', () => {
    const { memory } = create(8 * MIB, 64 * MIB, 0, true)
    memory.writeU8(0x1000, 1)
    expect(memory.residentFrames).toBe(1)
    memory.writeU8(2 * MIB + 5, 1)
    expect(memory.residentFrames).toBe(513)
    expect(memory.peek(2 * MIB)! % (2 * MIB)).toBe(0)
    expect(memory.peek(4 * MIB - 1)).toBe(memory.peek(2 * MIB)! + 2 * MIB - 1)
  })

  it('lets ROM be read, and written by writeRom only', () => {
    const { memory } = create(MIB, 16 * MIB, 4096)
    expect(memory.writeBytes(FOUR_GIB - 4096, Uint8Array.of(1))).toBe(false)
    expect(memory.writeRom(FOUR_GIB - 4096, Uint8Array.of(1, 2))).toBe(true)
    expect(memory.readU16(FOUR_GIB - 4096)).toBe(0x201)
    expect(memory.translate(FOUR_GIB - 4096, 'write')).toBeUndefined()
    expect(memory.translate(FOUR_GIB - 4096, 'fetch')).toBeDefined()
    expect(memory.isWritable(FOUR_GIB - 4096)).toBe(false)
    expect(memory.readU16(FOUR_GIB - 1)).toBeUndefined()
  })

  it('copies a shared frame before it is written', () => {
    const { memory, hostMemory } = create()
    const onMemoryChange = vi.fn()
    memory.setPaging({ onMemoryChange })
    memory.writeU32(0x7000, 5)
    const shared = hpa(memory.peek(0x7000)!)
    hostMemory.shareFrame(shared)
    expect(memory.isWritable(0x7000)).toBe(false)
    memory.writeU32(0x7004, 6)
    expect(onMemoryChange).toHaveBeenCalledWith([{ address: 0x7000, length: FRAME_SIZE }], 'unmapped')
    expect(memory.peek(0x7000)).not.toBe(shared)
    expect([memory.readU32(0x7000), memory.readU32(0x7004)]).toEqual([5, 6])
    expect(hostMemory.references(shared)).toBe(1)
    expect(memory.isWritable(0x7000)).toBe(true)
  })

  it('logs what was written', () => {
    const { memory } = create()
    const onMemoryChange = vi.fn()
    memory.setPaging({ onMemoryChange })
    memory.writeU8(0x1000, 1)
    memory.setDirtyLog(true)
    expect(onMemoryChange).toHaveBeenCalledWith(
      [
        { address: 0, length: 0xa0000 },
        { address: 0xc0000, length: 4 * MIB - 0xc0000 },
      ],
      'writeProtected',
    )
    expect(memory.isWritable(0x1000)).toBe(false)
    memory.writeU8(0x3000, 1)
    memory.translate(0x1000, 'write')
    memory.readU8(0x2000)
    expect(memory.takeDirty()).toEqual([0x1000, 0x3000])
    expect(memory.takeDirty()).toEqual([])
    memory.setDirtyLog(false)
    expect(memory.isWritable(0x1000)).toBe(true)
  })

  it('tells of writes behind the back of the processor', () => {
    const { memory, hostMemory } = create()
    const watcher = vi.fn()
    hostMemory.watchWrites(watcher)
    memory.writeU16(0x1004, 1)
    expect(watcher).not.toHaveBeenCalled()
    hostMemory.codeHolders[memory.peek(0x1000)! >>> 12] = 1
    memory.writeU16(0x1004, 1)
    expect(watcher).toHaveBeenCalledWith(memory.peek(0x1004), 2)
  })

  it('gives frames back', () => {
    const { memory, hostMemory } = create()
    const before = hostMemory.freeFrames
    memory.writeU8(0x1000, 9)
    expect(memory.release([page(0x1000)])).toBe(1)
    expect(memory.release([page(0x1000)])).toBe(0)
    expect(hostMemory.freeFrames).toBe(before)
    expect(memory.readU8(0x1000)).toBe(0)
    memory.dispose()
    expect(hostMemory.freeFrames).toBe(before)
  })

  it('lends its bytes, neighbours joined, and nothing that is not RAM', () => {
    const { memory } = create()
    const first = Uint8Array.from({ length: 9000 }, (_, index) => index)
    memory.writeBytes(0x10000, first)
    const lease = memory.lease(
      [
        { address: 0x10001, length: 8000 },
        { address: 0x10000, length: 1 },
      ],
      'read',
    )!
    expect(lease.views.flatMap((view) => [...view])).toEqual([...first.subarray(1, 8001), 0])
    lease.end()
    expect(memory.lease([{ address: 0x9ffff, length: 2 }], 'read')).toBeUndefined()
    expect(memory.lease([{ address: 2 ** 60, length: 2 }], 'write')).toBeUndefined()
  })

  it('hears of what was written to a lease when it ends', () => {
    const { memory, hostMemory } = create()
    memory.setDirtyLog(true)
    const lease = memory.lease([{ address: 0x1ff0, length: 0x20 }], 'write')!
    memory.takeDirty()
    const watcher = vi.fn()
    hostMemory.watchWrites(watcher)
    for (const page of [0x1000, 0x2000]) hostMemory.codeHolders[memory.peek(page)! >>> 12] = 1
    lease.views[0]![0] = 7
    expect(watcher).not.toHaveBeenCalled()
    lease.end()
    expect(memory.takeDirty()).toEqual([0x1000, 0x2000])
    expect(watcher.mock.calls.reduce((sum, [, length]) => sum + (length as number), 0)).toBe(0x20)
    expect(memory.readU8(0x1ff0)).toBe(7)
  })

  it('keeps a frame that is lent from everybody else until the lease ends, however many others come and go', () => {
    const { memory, hostMemory } = create()
    const before = hostMemory.freeFrames
    const long = memory.lease([{ address: 0x5000, length: 4096 }], 'write')!
    memory.release([page(0x5000)])
    for (let round = 0; round < 10; round++) {
      const short = memory.lease([{ address: 0x6000, length: 4096 }], 'write')!
      memory.release([page(0x6000)])
      short.end()
    }
    long.views[0]!.fill(0x55)
    expect(memory.readU8(0x5000)).toBe(0)
    long.end()
    memory.release([page(0x5000)])
    expect(hostMemory.freeFrames).toBe(before)
  })
})

describe('a page that is added where there is no memory', () => {
  const AT = FOUR_GIB * 4
  it('is RAM like any other until it is taken away, and part of no map', () => {
    const { memory } = create()
    const { size, regions } = memory
    expect([memory.writeU32(AT, 7), memory.addPage(AT), memory.writeU32(AT, 7), memory.readU32(AT)]).toEqual([
      ...[false, true, true, 7],
    ])
    expect([memory.size, memory.regions]).toEqual([size, regions])
    expect(memory.isRam(AT + 4095, 2)).toBe(false)
    expect([memory.removePage(AT), memory.readU32(AT), memory.removePage(AT)]).toEqual([true, undefined, false])
    expect([memory.addPage(AT), memory.readU32(AT)]).toEqual([true, 0])
  })
  it.each([
    ['memory', 0x1000],
    ['no page’s start', AT + 8],
    ['no address', -4096],
    ['beyond all addresses', 2 ** 48],
    ['no number', Number.NaN],
  ])('is refused at %s', (_what, address) => {
    expect(create().memory.addPage(address)).toBe(false)
  })
  it('stays while it is pinned', () => {
    const { memory } = create()
    memory.addPage(AT)
    memory.pin(AT)
    expect(memory.removePage(AT)).toBe(false)
    memory.unpin(AT)
    expect(memory.removePage(AT)).toBe(true)
    expect(memory.removePage(0x1000)).toBe(false)
  })
  it('is one of 128 at most, and all frames go back to the host', () => {
    const { memory, hostMemory } = create()
    const free = hostMemory.freeFrames
    const added = Array.from({ length: 130 }, (_, n) => memory.addPage(AT + n * FRAME_SIZE))
    expect(added.filter(Boolean)).toHaveLength(128)
    for (let n = 0; n < 128; n++) memory.writeU8(AT + n * FRAME_SIZE, 1)
    for (let n = 0; n < 128; n++) memory.removePage(AT + n * FRAME_SIZE)
    expect(hostMemory.freeFrames).toBe(free)
  })
})

describe('a vCPU that needs a parked page while the host is short', () => {
  const content = new Uint8Array(FRAME_SIZE).fill(7)
  it.each([
    ['waits for a frame if the filler delivers at once', {}],
    ['waits for the filler if that takes time', { fill: () => Promise.resolve(content) }],
  ])('%s', async (_, slow) => {
    const hostMemory = createHostMemory(4 * MIB)
    const onShortage = vi.fn(() => Promise.resolve(void memory.release([page(FRAME_SIZE)])))
    const onFailure = vi.fn()
    const memory: DemandGuestMemory = new DemandGuestMemory({
      ...{ hostMemory, regions: pcMemoryMap(MIB, 0), largeRuns: false, onShortage, onFailure },
      // One frame is more than may be taken.
      reserve: hostMemory.freeGuestFrames - 1,
    })
    const filler = { keep: () => true, fillNow: (_page: number, into: Uint8Array) => into.set(content), ...slow }
    memory.writeU8(0, 7)
    expect(memory.park(0, filler)).toBe('done')
    memory.writeU8(FRAME_SIZE, 1)
    expect(memory.translate(0, 'read')).toBe('wait')
    expect(await memory.ready(0)).toBeUndefined()
    expect(onShortage).toHaveBeenCalledOnce()
    const frame = memory.translate(0, 'read')
    expect(hostMemory.bytes[frame as number]).toBe(7)
    expect(onFailure).not.toHaveBeenCalled()
  })
})
