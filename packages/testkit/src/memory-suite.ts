/** What every host memory and every guest memory must do. */

import { FRAME_SIZE, gpa } from '@nonroot/contracts'
import type { GuestFrames, GuestMemory, HostMemory, Hpa } from '@nonroot/contracts'
import { check, checkSame, checkThrows } from './check.ts'
import type { TestRegistrar } from './check.ts'

/** `create` makes a host of at least 64 free frames. */
export function testHostMemory(create: () => HostMemory, it: TestRegistrar): void {
  it('host memory: hands out zeroed frames, each once, until none is left', () => {
    const host = create()
    const free = host.freeFrames
    const seen = new Set<number>()
    for (let frame = host.allocateFrame(); frame !== undefined; frame = host.allocateFrame()) {
      check(frame % FRAME_SIZE === 0, `${frame} is no frame`)
      check(!seen.has(frame), `frame ${frame} was handed out twice`)
      seen.add(frame)
      check(
        host.bytes.subarray(frame, frame + FRAME_SIZE).every((byte) => byte === 0),
        'a frame is not zero',
      )
      host.bytes.fill(0xa5, frame, frame + FRAME_SIZE)
    }
    checkSame(seen.size, free, 'frames handed out')
    checkSame(host.freeFrames, 0, 'free frames when none is left')
    for (const frame of seen) host.freeFrame(frame as Hpa)
    checkSame(host.freeFrames, free, 'free frames after all were freed')
    const again = host.allocateFrame()!
    check(
      host.bytes.subarray(again, again + FRAME_SIZE).every((byte) => byte === 0),
      'a frame used again is not zero',
    )
  })

  it('host memory: adjoining frames are adjoining and aligned', () => {
    const host = create()
    host.allocateFrame()
    for (const [count, align] of [
      [1, 1],
      [3, 1],
      [4, 4],
      [5, 8],
      [2, 16],
    ] as const) {
      const start = host.allocateFrames(count, align)
      check(start !== undefined, `${count} frames at a multiple of ${align}`)
      checkSame(start % (align * FRAME_SIZE), 0, 'alignment')
    }
    checkSame(host.allocateFrames(host.totalFrames + 1), undefined, 'more frames than there are')
  })

  it('host memory: counts owners; the last one frees', () => {
    const host = create()
    const frame = host.allocateFrame()!
    const free = host.freeFrames
    host.shareFrame(frame)
    checkSame(host.references(frame), 2, 'owners')
    host.freeFrame(frame)
    checkSame([host.references(frame), host.freeFrames], [1, free], 'one owner less')
    host.freeFrame(frame)
    checkSame([host.references(frame), host.freeFrames], [0, free + 1], 'no owner')
  })

  it('host memory: tells watchers of writes to frames with code and of such frames freed, until they stop', () => {
    const host = create()
    const heard: [number, number][] = []
    const frame = host.allocateFrame()!
    host.codeHolders[host.allocateFrame()! >>> 12] = 1
    host.codeHolders[frame >>> 12] = 1
    host.noteWrite(host.allocateFrame()!, FRAME_SIZE)
    host.shareFrame(frame)
    const stop = host.watchWrites((address, length) => void heard.push([address, length]))
    host.noteWrite((frame + 8) as Hpa, 4)
    host.freeFrame(frame)
    host.freeFrame(frame)
    checkSame(
      heard,
      [
        [frame + 8, 4],
        [frame, FRAME_SIZE],
        [frame, FRAME_SIZE],
      ],
      'what watchers heard',
    )
    stop()
    host.noteWrite(frame, 1)
    checkSame(heard.length, 3, 'after stopping')
  })

  it('host memory: a frame without an owner is neither freed nor shared', () => {
    const host = create()
    const frame = host.allocateFrame()!
    host.freeFrame(frame)
    const free = host.freeFrames
    for (const wrong of [frame, 0, host.zeroFrame, 12345, -FRAME_SIZE, host.totalFrames * FRAME_SIZE, NaN]) {
      for (const act of [() => host.freeFrame(wrong as Hpa), () => host.shareFrame(wrong as Hpa)])
        checkThrows(act, 'internal', `frame ${wrong}`)
    }
    checkSame([host.freeFrames, host.references(frame)], [free, 0], 'after what was refused')
  })

  it('host memory: the zero frame is zero and is never handed out', () => {
    const host = create()
    const { zeroFrame } = host
    for (let frame = host.allocateFrame(); frame !== undefined; frame = host.allocateFrame()) {
      check(frame !== zeroFrame, 'the zero frame was handed out')
      host.bytes.fill(0xff, frame, frame + FRAME_SIZE)
    }
    check(
      host.bytes.subarray(zeroFrame, zeroFrame + FRAME_SIZE).every((byte) => byte === 0),
      'the zero frame is not zero',
    )
  })

  it('host memory: bytes, view and words are one shared memory', () => {
    const host = create()
    check(host.memory.buffer instanceof SharedArrayBuffer, 'the memory is not shared')
    const frame = host.allocateFrame()!
    host.view.setUint32(frame, 0x11223344, true)
    checkSame([host.bytes[frame], host.words[frame >>> 2]], [0x44, 0x11223344], 'the same bytes')
  })
}

/** A guest of `size` bytes of RAM at 0 (256 KiB at least), with nothing else mapped. */
export type CreateGuestMemory = () => { memory: GuestMemory & GuestFrames; host: HostMemory }

/** What a guest's memory does for those who read and write it. Its frames have a suite of their own (`testGuestFrames`). */
export function testGuestMemory(create: CreateGuestMemory, it: TestRegistrar): void {
  it('guest memory: reads back what was written, at any alignment, across frames', () => {
    const { memory } = create()
    for (const at of [0, 1, FRAME_SIZE - 1, FRAME_SIZE - 4, FRAME_SIZE * 3 - 3, memory.size - 8]) {
      check(memory.writeU64(at, 0x1122334455667788n), `writeU64 at ${at}`)
      checkSame(memory.readU64(at), 0x1122334455667788n, `readU64 at ${at}`)
      checkSame(
        [memory.readU8(at), memory.readU16(at), memory.readU32(at)],
        [0x88, 0x7788, 0x55667788],
        `parts at ${at}`,
      )
      check(
        memory.writeU16(at, 0xbeef) && memory.writeU8(at + 2, 0x5a) && memory.writeU32(at + 4, 0xffffffff),
        'writes',
      )
      checkSame(memory.readU64(at), 0xffffffff555abeefn, `after smaller writes at ${at}`)
    }
    const bytes = Uint8Array.from({ length: 3 * FRAME_SIZE }, (_, index) => index * 7)
    const back = new Uint8Array(bytes.length)
    check(memory.writeBytes(FRAME_SIZE - 5, bytes) && memory.readBytes(FRAME_SIZE - 5, back), 'bytes over four frames')
    checkSame(back, bytes, 'bytes over four frames')
    check(memory.fill(FRAME_SIZE, 2 * FRAME_SIZE, 0x5a), 'fill')
    checkSame([memory.readU8(2 * FRAME_SIZE), memory.readU8(3 * FRAME_SIZE - 1)], [0x5a, 0x5a], 'filled')
  })

  it('guest memory: an access that is not wholly inside RAM says so and changes nothing', () => {
    const { memory, host } = create()
    const free = host.freeFrames
    const { size } = memory
    const hostile = [
      size,
      size - 1,
      size - 3,
      -1,
      -8,
      2 ** 32,
      2 ** 52,
      Number.MAX_SAFE_INTEGER,
      0.5,
      NaN,
      Infinity,
      -Infinity,
    ]
    for (const at of hostile.filter((address) => address !== size - 1 && address !== size - 3)) {
      checkSame(
        [memory.readU8(at), memory.readU64(at), memory.translate(at, 'read'), memory.peek(at)],
        [undefined, undefined, undefined, undefined],
        `reads at ${at}`,
      )
      checkSame(
        [memory.writeU8(at, 1), memory.writeU64(at, 1n), memory.isRam(at, 1)],
        [false, false, false],
        `writes at ${at}`,
      )
    }
    for (const at of hostile) {
      checkSame(
        [
          memory.readU32(at),
          memory.writeU32(at, 1),
          memory.readBytes(at, new Uint8Array(8)),
          memory.writeBytes(at, new Uint8Array(8)),
          memory.fill(at, 8, 1),
        ],
        [undefined, false, false, false, false],
        `access at ${at}`,
      )
    }
    for (const length of [-1, NaN, Infinity, 2 ** 53, 0.5, size + 1]) {
      checkSame([memory.isRam(0, length), memory.fill(0, length, 1)], [false, false], `length ${length}`)
    }
    checkSame(host.freeFrames, free, 'frames taken by accesses that failed')
  })

  it('guest memory: watchers of host memory hear of device writes', () => {
    const { memory, host } = create()
    const at = memory.translate(8, 'write') as Hpa
    host.codeHolders[at >>> 12] = 1
    let heard = 0
    host.watchWrites((address, length) => {
      if (address <= at && address + length > at) heard++
    })
    memory.writeU8(8, 1)
    check(heard > 0, 'no watcher was called for the write')
  })

  it('guest memory: lends its bytes, in order, across frames', () => {
    const { memory } = create()
    const bytes = Uint8Array.from({ length: 6000 }, (_, index) => index & 0xff)
    memory.writeBytes(100, bytes)
    const joined = (views: readonly Uint8Array[]) => views.flatMap((view) => [...view])
    const lease = memory.lease(
      [
        { address: 5000, length: 1100 },
        { address: 100, length: 10 },
      ],
      'read',
    )!
    checkSame(joined(lease.views), [...bytes.subarray(4900), ...bytes.subarray(0, 10)], 'bytes lent')
    lease.end()
    const writing = memory.lease([{ address: 4000, length: 200 }], 'write')!
    for (const view of writing.views) view.fill(9)
    writing.end()
    const back = new Uint8Array(202)
    memory.readBytes(3999, back)
    checkSame([back[0], back[1], back[200], back[201]], [bytes[3899], 9, 9, bytes[4100]], 'bytes written')
  })

  it('guest memory: lends nothing unless all of it is RAM', () => {
    const { memory } = create()
    for (const piece of [
      { address: memory.size, length: 1 },
      { address: -1, length: 4 },
      { address: 0.5, length: 4 },
      { address: 0, length: NaN },
      { address: 2 ** 53, length: 1 },
    ]) {
      checkSame(memory.lease([{ address: 0, length: 16 }, piece], 'write'), undefined, `a lease at ${piece.address}`)
    }
  })

  it('guest memory: a frame that is lent is not handed out again before the lease ends', () => {
    const { host, memory } = create()
    memory.writeU8(0x3000, 1)
    const lease = memory.lease([{ address: 0x3000, length: 4096 }], 'write')!
    const frame = memory.peek(0x3000)!
    const later = memory.lease([{ address: 0, length: 1 }], 'read')!
    memory.release([{ address: gpa(0x3000), length: FRAME_SIZE }])
    checkSame(memory.readU8(0x3000), 0, 'what was given back')
    lease.views[0]!.fill(0x55)
    checkSame([memory.readU8(0x3000), host.references(frame)], [0, 1], 'memory that was not lent')
    lease.end()
    later.end()
    checkSame(host.references((frame - (frame % FRAME_SIZE)) as Hpa), 0, 'owners of a frame after its lease')
  })

  it('guest memory: the dirty log and watchers hear of a lease for writing when it ends', () => {
    const { host, memory } = create()
    memory.setDirtyLog(true)
    const lease = memory.lease([{ address: 0x1800, length: 0x1000 }], 'write')!
    memory.takeDirty()
    for (const page of [0x1000, 0x2000]) host.codeHolders[memory.peek(page)! >>> 12] = 1
    const heard: number[] = []
    const stop = host.watchWrites((_, length) => void heard.push(length))
    lease.end()
    stop()
    checkSame(memory.takeDirty(), [gpa(0x1000), gpa(0x2000)], 'dirty pages')
    checkSame(
      heard.reduce((sum, length) => sum + length, 0),
      0x1000,
      'bytes that watchers heard of',
    )
  })
}
