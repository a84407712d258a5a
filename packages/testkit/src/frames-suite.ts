/** What the frames behind every guest memory must do, judged by what a guest or a device then reads. */

import { FRAME_SIZE, gpa } from '@nonroot/contracts'
import type {
  FrameFiller,
  FrameState,
  GuestFrames,
  GuestMemory,
  HostMemory,
  Hpa,
  MemoryPage,
  MemoryRange,
  PagingStrategy,
} from '@nonroot/contracts'
import { check, checkSame, checkThrows, createRandom } from './check.ts'
import type { TestRegistrar } from './check.ts'

export interface GuestFramesOptions {
  readonly paging?: Pick<PagingStrategy, 'onMemoryChange'>
  readonly onShortage?: () => Promise<string | undefined>
  readonly onFailure?: (message: string) => void
}
type Memory = GuestMemory & GuestFrames
/** A guest of `size` bytes of RAM at 0 (256 KiB to 1 MiB), with nothing else mapped, on a host with at least as many free frames again. */
export type CreateGuestFrames = (options: GuestFramesOptions) => { memory: Memory; host: HostMemory }

const at = (page: number): number => page * FRAME_SIZE
const range = (page: number, count = 1): MemoryRange => ({ address: gpa(at(page)), length: at(count) })
const kindOf = (state: FrameState | undefined): string => state?.kind ?? 'none'

/** A filler that keeps what it is given, and says what it was asked. */
function createFiller(later = false): FrameFiller & { asked: string[]; deliver(): void; fail(error: Error): void } {
  const kept = new Map<number, Uint8Array>()
  const asked: string[] = []
  const waiting: { resolve(bytes: Uint8Array): void; reject(error: Error): void; address: number }[] = []
  const contentOf = (address: number): Uint8Array => kept.get(address) ?? new Uint8Array(FRAME_SIZE).fill(0x77)
  return {
    asked,
    keep(address, content) {
      asked.push(`keep ${address / FRAME_SIZE}`)
      kept.set(address, content.slice())
      return true
    },
    fillNow(address, into) {
      asked.push(`fillNow ${address / FRAME_SIZE}`)
      into.set(contentOf(address))
    },
    ...(later
      ? {
          fill(address: number) {
            asked.push(`fill ${address / FRAME_SIZE}`)
            return new Promise<Uint8Array>((resolve, reject) => waiting.push({ resolve, reject, address }))
          },
        }
      : {}),
    drop: (address) => void asked.push(`drop ${address / FRAME_SIZE}`),
    deliver: () => waiting.splice(0).forEach(({ resolve, address }) => resolve(contentOf(address))),
    fail: (error) => waiting.splice(0).forEach(({ reject }) => reject(error)),
  }
}

/** Takes all that the host has, and gives it back. */
function exhaust(host: HostMemory): () => void {
  const frames: Hpa[] = []
  for (let frame = host.allocateFrame(); frame !== undefined; frame = host.allocateFrame()) frames.push(frame)
  return () => frames.splice(0).forEach((frame) => host.freeFrame(frame))
}

export function testGuestFrames(create: CreateGuestFrames, it: TestRegistrar): void {
  it('guest frames: come when they are written, zeroed, and go when released', () => {
    const { memory } = create({})
    checkSame([memory.peek(at(5)), memory.residentFrames], [undefined, 0], 'before any touch')
    checkSame([memory.readU32(at(5)), memory.residentFrames], [0, 0], 'a read of what was never written')
    memory.writeU32(at(6) + 8, 7)
    checkSame([memory.readU32(at(6)), memory.residentFrames], [0, 1], 'written')
    checkSame(memory.release([range(6)]), 1, 'frames released')
    checkSame(
      [memory.peek(at(6)), memory.readU32(at(6) + 8), memory.residentFrames],
      [undefined, 0, 0],
      'after release',
    )
    checkSame(memory.release([range(6)]), 0, 'released again')
  })

  it('guest frames: translate gives the byte that reads and writes go to', () => {
    const { memory, host } = create({})
    memory.writeU32(at(1) + 12, 0xcafe)
    const byte = memory.translate(at(1) + 12, 'write') as Hpa
    checkSame(host.view.getUint32(byte, true), 0xcafe, 'through host memory')
    host.view.setUint32(byte, 0xbabe, true)
    checkSame([memory.readU32(at(1) + 12), memory.peek(at(1) + 12)], [0xbabe, byte], 'back')
    for (const address of [-1, memory.size, 0.5, NaN, 2 ** 52])
      checkSame(
        [memory.translate(address, 'read'), kindOf(memory.state(address))],
        [undefined, 'none'],
        `at ${address}`,
      )
  })

  it('guest frames: a list of ranges goes at once; what is not a whole frame of RAM stays', () => {
    const changes: unknown[] = []
    const { memory, host } = create({
      paging: {
        onMemoryChange: (ranges, change) =>
          void changes.push([
            change,
            ...ranges.map(({ address, length }) => [address / FRAME_SIZE, length / FRAME_SIZE]),
          ]),
      },
    })
    memory.fill(0, at(16), 1)
    const free = host.freeFrames
    const hostile = [
      [-at(4), at(4)],
      [memory.size, at(1)],
      [2 ** 52, 2 ** 53],
      [NaN, at(9)],
      [0, NaN],
      [0, -at(3)],
      [Infinity, 1],
      [at(14), FRAME_SIZE - 1],
      [at(15) + 1, FRAME_SIZE],
    ].map(([address, length]) => ({ address: gpa(address!), length: length! }))
    checkSame(memory.release(hostile), 0, 'frames of ranges that hold none')
    checkSame(changes.length, 0, 'times that paging was told of nothing')
    // Two neighbours, one twice, and the whole frames of a range that begins and ends in the midst of others.
    const taken = memory.release([range(3), range(4), range(3), { address: gpa(at(8) + 1), length: at(3) }])
    checkSame([taken, host.freeFrames], [4, free + 4], 'frames')
    checkSame(changes.length, 1, 'times that paging was told')
    for (let page = 0; page < 16; page++)
      checkSame(memory.readU8(at(page) + 5), [3, 4, 9, 10].includes(page) ? 0 : 1, `page ${page}`)
    const all = memory.release([{ address: gpa(-(2 ** 40)), length: 2 ** 50 }])
    checkSame([all, memory.residentFrames], [12, 0], 'all of it')
  })

  it('guest frames: paging hears of a change before the frame is anybody else’s', () => {
    let watched: Hpa | undefined
    const owners: number[] = []
    const { memory, host } = create({
      paging: { onMemoryChange: () => void (watched !== undefined && owners.push(host.references(watched))) },
    })
    const ways: [string, (page: number) => unknown][] = [
      ['release', (page) => memory.release([range(page)])],
      ['park', (page) => memory.park(at(page), createFiller())],
      ['replace', (page) => memory.replace(at(page), host.allocateFrame()!)],
      ['share', (page) => memory.share(at(page), memory.expose(at(page + 1)) as Hpa)],
    ]
    for (const [index, [name, act]] of ways.entries()) {
      const page = 2 * index
      memory.fill(at(page), at(2), 9)
      watched = memory.peek(at(page))!
      owners.length = 0
      act(page)
      const told = owners.at(-1)
      checkSame([told, host.references(watched)], [1, 0], `${name}: owners when paging was told, and in the end`)
      watched = undefined
    }
  })

  it('guest frames: a shared frame is copied before it is written, by a vCPU or a device', () => {
    const { memory, host } = create({})
    const ways: [string, (page: number) => unknown][] = [
      ['writeU8', (page) => memory.writeU8(at(page), 2)],
      ['writeBytes', (page) => memory.writeBytes(at(page), Uint8Array.of(2))],
      ['fill', (page) => memory.fill(at(page), 1, 2)],
      ['translate', (page) => (host.bytes[memory.translate(at(page), 'write') as Hpa] = 2)],
      ['lease', (page) => (memory.lease([{ address: at(page), length: 1 }], 'write')!.views[0]![0] = 2)],
    ]
    for (const [index, [name, act]] of ways.entries()) {
      const [page, twin] = [2 * index, 2 * index + 1]
      memory.fill(at(page), at(2), 1)
      const resident = memory.residentFrames
      const frame = memory.expose(at(page)) as Hpa
      checkSame(memory.share(at(twin), frame), 'done', `${name}: shared`)
      checkSame(
        [kindOf(memory.state(at(page))), memory.peek(at(twin)), host.references(frame)],
        ['shared', frame, 2],
        name,
      )
      check(!memory.isWritable(at(page)), `${name}: a shared frame may be mapped writable`)
      act(page)
      checkSame(
        [memory.readU8(at(page)), memory.readU8(at(page) + 1), memory.readU8(at(twin))],
        [2, 1, 1],
        `${name}: bytes`,
      )
      checkSame(
        [kindOf(memory.state(at(twin))), memory.isWritable(at(twin))],
        ['private', true],
        `${name}: the last owner`,
      )
      checkSame(memory.residentFrames, resident, `${name}: resident frames`)
    }
  })

  it('guest frames: sharing needs the same content, down to the last byte', () => {
    const { memory, host } = create({})
    memory.fill(0, at(3), 5)
    memory.writeU8(at(1) + FRAME_SIZE - 1, 6)
    const frame = memory.expose(0) as Hpa
    checkSame(memory.share(at(1), frame), 'different', 'another last byte')
    checkSame([memory.readU8(at(1) + FRAME_SIZE - 1), host.references(frame)], [6, 2], 'after it was refused')
    checkSame([memory.share(at(2), frame), memory.peek(at(2))], ['done', frame], 'the same content')
  })

  it('guest frames: each state refuses what it cannot do, and nothing has changed then', () => {
    const { memory, host } = create({})
    memory.fill(0, at(8), 3)
    memory.park(at(1), createFiller())
    memory.pin(at(2))
    const lease = memory.lease([{ address: at(3), length: 16 }], 'write')!
    memory.release([range(4)])
    const rows: [string, number, Record<'park' | 'expose' | 'share' | 'replace', string>][] = [
      ['parked', at(1), { park: 'parked', expose: 'parked', share: 'parked', replace: '-' }],
      ['pinned', at(2), { park: 'pinned', expose: 'pinned', share: 'pinned', replace: 'pinned' }],
      ['lent', at(3), { park: 'lent', expose: 'lent', share: 'lent', replace: 'lent' }],
      ['absent', at(4), { park: '-', expose: 'none', share: 'none', replace: '-' }],
      ['no RAM', memory.size, { park: 'none', expose: 'none', share: 'none', replace: 'none' }],
      ['no address', NaN, { park: 'none', expose: 'none', share: 'none', replace: 'none' }],
    ]
    const frame = host.allocateFrame()!
    for (const [name, address, wanted] of rows) {
      const before = memory.state(address)
      const acts = {
        park: () => memory.park(address, createFiller()),
        expose: () => memory.expose(address),
        share: () => memory.share(address, frame),
        replace: () => memory.replace(address, frame),
      }
      for (const [act, outcome] of Object.entries(wanted) as [keyof typeof acts, string][]) {
        if (outcome === '-') continue
        checkSame(
          [acts[act](), kindOf(memory.state(address))],
          [outcome, kindOf(before)],
          `${act} of a page that is ${name}`,
        )
      }
    }
    checkSame([host.references(frame), memory.release([range(2)])], [1, 0], 'the frame offered, and the pinned page')
    lease.end()
    checkSame(memory.park(at(3), createFiller()), 'done', 'after the lease')
    checkSame(memory.readU8(at(3)), 3, 'and back')
  })

  it('guest frames: a pin holds until as many unpins', () => {
    const { memory, host } = create({})
    const first = memory.pin(at(1)) as Hpa
    checkSame(
      [memory.pin(at(1)), memory.pinnedFrames, kindOf(memory.state(at(1)))],
      [first, 1, 'private'],
      'pinned twice',
    )
    checkSame([memory.unpin(at(1)), memory.release([range(1)]), memory.peek(at(1))], [true, 0, first], 'unpinned once')
    checkSame([memory.unpin(at(1)), memory.unpin(at(1)), memory.pinnedFrames], [true, false, 0], 'unpinned')
    checkSame([memory.release([range(1)]), memory.pin(memory.size), memory.unpin(NaN)], [1, undefined, false], 'after')
    memory.fill(at(2), at(2), 8)
    memory.share(at(3), memory.expose(at(2)) as Hpa)
    const own = memory.pin(at(2)) as Hpa
    checkSame([host.references(own), memory.readU8(at(2)), memory.readU8(at(3))], [1, 8, 8], 'a shared page, pinned')
  })

  it('guest frames: usage counts the pages of each state', () => {
    const { memory, host } = create({})
    for (const page of [1, 2, 3, 4]) memory.fill(at(page), FRAME_SIZE, 9)
    memory.share(at(2), memory.expose(at(1)) as Hpa)
    memory.park(at(3), createFiller())
    memory.pin(at(4))
    checkSame(
      memory.usage(),
      { residentFrames: 3, sharedFrames: 2, parkedFrames: 1, pinnedFrames: 1 },
      'one of each kind, and a pair',
    )
    checkSame(host.references(memory.peek(at(1)) as Hpa), 2, 'owners of the shared frame')
  })

  it('guest frames: replace puts a frame in place of whatever is there', () => {
    const { memory, host } = create({})
    const filler = createFiller()
    const states: [string, number][] = [
      ['absent', 1],
      ['private', 2],
      ['parked', 3],
    ]
    memory.fill(at(2), at(2), 1)
    memory.park(at(3), filler)
    for (const [name, page] of states) {
      const frame = host.allocateFrame()!
      host.bytes.fill(0xc0 + page, frame, frame + FRAME_SIZE)
      checkSame(memory.replace(at(page) + 7, frame), 'done', name)
      checkSame([memory.peek(at(page)), memory.readU8(at(page) + 99)], [frame, 0xc0 + page], `${name}, replaced`)
    }
    checkSame([memory.residentFrames, filler.asked.at(-1)], [3, 'drop 3'], 'in the end')
  })

  it('guest frames: a parked page keeps its content, whichever access is first', () => {
    const { memory, host } = create({})
    const back = new Uint8Array(8)
    const ways: [string, (address: number) => unknown][] = [
      ['readU8', (address) => memory.readU8(address + 1)],
      ['readU32', (address) => memory.readU32(address + 1)! & 0xff],
      ['readU64', (address) => Number(memory.readU64(address + 1)! & 0xffn)],
      ['readBytes', (address) => (memory.readBytes(address + 1, back), back[0])],
      ['writeU8', (address) => (memory.writeU8(address, 9), memory.readU8(address + 1))],
      ['fill', (address) => (memory.fill(address + 8, 16, 0), memory.readU8(address + 1))],
      ['a lease', (address) => memory.lease([{ address, length: 8 }], 'read')!.views[0]![1]],
      ['a vCPU reads', (address) => host.bytes[(memory.translate(address, 'read') as Hpa) + 1]],
      ['a vCPU writes', (address) => host.bytes[(memory.translate(address, 'write') as Hpa) + 1]],
      ['across frames', (address) => (memory.readU16(address - 1)! >> 8) + memory.readU8(address)!],
    ]
    for (const [index, [name, act]] of ways.entries()) {
      const page = 2 * index + 1
      const filler = createFiller()
      memory.fill(at(page), FRAME_SIZE, 0x42)
      if (name === 'across frames') memory.fill(at(page), FRAME_SIZE, 0x21)
      const resident = memory.residentFrames
      checkSame(
        [memory.park(at(page) + 3, filler), memory.peek(at(page)), memory.residentFrames],
        ['done', undefined, resident - 1],
        name,
      )
      checkSame([kindOf(memory.state(at(page))), memory.isWritable(at(page))], ['parked', false], `${name}: parked`)
      checkSame(act(at(page)), 0x42, name)
      checkSame([kindOf(memory.state(at(page))), memory.residentFrames], ['private', resident], `${name}: back`)
      checkSame(filler.asked, [`keep ${page}`, `fillNow ${page}`, `drop ${page}`], `${name}: what the filler was asked`)
    }
  })

  it('guest frames: what is written over or given back is not fetched first', () => {
    const { memory } = create({})
    const bytes = new Uint8Array(FRAME_SIZE).fill(0xd1)
    const ways: [string, (address: number) => unknown, number][] = [
      ['writeBytes', (address) => memory.writeBytes(address, bytes), 0xd1],
      ['fill', (address) => memory.fill(address, FRAME_SIZE, 0xd1), 0xd1],
      ['release', (address) => memory.release([{ address: gpa(address), length: FRAME_SIZE }]), 0],
    ]
    for (const [index, [name, act, value]] of ways.entries()) {
      const filler = createFiller()
      memory.fill(at(index), FRAME_SIZE, 0x42)
      memory.park(at(index), filler)
      act(at(index))
      checkSame(filler.asked, [`keep ${index}`, `drop ${index}`], `${name}: what the filler was asked`)
      checkSame([memory.readU8(at(index)), memory.readU8(at(index + 1) - 1)], [value, value], name)
    }
  })

  it('guest frames: a filler may have the content of pages that were never there, and may decline what is', () => {
    const { memory } = create({})
    const filler = createFiller()
    checkSame(
      [memory.park(at(2), filler), memory.readU8(at(2)), filler.asked],
      ['done', 0x77, ['fillNow 2', 'drop 2']],
      'lazy restore',
    )
    memory.writeU8(at(3), 5)
    checkSame(memory.park(at(3), { ...filler, keep: () => false }), 'declined', 'declined')
    checkSame([memory.readU8(at(3)), kindOf(memory.state(at(3)))], [5, 'private'], 'a page that was declined')
  })

  it('guest frames: a vCPU waits for a filler that takes its time; all that wait are served by one fill', async () => {
    const { memory, host } = create({})
    const filler = createFiller(true)
    memory.fill(at(1), FRAME_SIZE, 0x42)
    memory.park(at(1), filler)
    checkSame(
      [memory.translate(at(1) + 5, 'read'), memory.pin(at(1)), memory.pinnedFrames],
      ['wait', 'wait', 0],
      'while it is away',
    )
    const waiting = [memory.ready(at(1) + 5), memory.ready(at(1))]
    checkSame([kindOf(memory.state(at(1))), memory.translate(at(1), 'write')], ['filling', 'wait'], 'on its way')
    filler.deliver()
    checkSame(await Promise.all(waiting), [undefined, undefined], 'what those that wait are told')
    checkSame(host.bytes[memory.translate(at(1) + 5, 'read') as Hpa], 0x42, 'back')
    checkSame(filler.asked, ['keep 1', 'fill 1', 'drop 1'], 'what the filler was asked')
  })

  it('guest frames: a vCPU does not wait for a page that its filler has near', () => {
    const { memory, host } = create({})
    const filler = createFiller(true)
    for (const page of [1, 2]) {
      memory.fill(at(page), FRAME_SIZE, 0x42)
      memory.park(at(page), { ...filler, isNear: (address) => address === at(2) })
    }
    const [far, near] = [1, 2].map((page) => memory.translate(at(page) + 5, 'write'))
    checkSame([far, host.bytes[near as Hpa]], ['wait', 0x42], 'the far page, the near page')
    checkSame(filler.asked, ['keep 1', 'keep 2', 'fillNow 2', 'drop 2'], 'what the filler was asked')
  })

  it('guest frames: what happens to a page while it is on its way counts, not what arrives', async () => {
    const { memory } = create({})
    const ways: [string, (page: number) => unknown, number][] = [
      ['a device reads, the guest writes', (page) => (memory.readU8(at(page)), memory.writeU8(at(page), 0x99)), 0x99],
      ['written over', (page) => memory.fill(at(page), FRAME_SIZE, 0x98), 0x98],
      ['given back', (page) => memory.release([range(page)]), 0],
    ]
    for (const [page, [name, act, value]] of ways.entries()) {
      const filler = createFiller(true)
      memory.fill(at(page), FRAME_SIZE, 0x42)
      memory.park(at(page), filler)
      const ready = memory.ready(at(page))
      act(page)
      filler.deliver()
      checkSame([await ready, memory.readU8(at(page))], [undefined, value], name)
      checkSame(filler.asked.filter((asked) => asked.startsWith('drop')).length, 1, `${name}: drops`)
    }
  })

  it('guest frames: a filler that fails ends the VM, and no access throws', async () => {
    const failures: string[] = []
    const { memory } = create({ onFailure: (message) => void failures.push(message) })
    const filler = createFiller(true)
    memory.park(at(1), filler)
    const ready = memory.ready(at(1))
    filler.fail(new Error('checksum of page 1 is wrong'))
    check((await ready)?.includes('checksum of page 1 is wrong'), 'a vCPU that waits is not told')
    const broken: FrameFiller = {
      fillNow() {
        throw new Error('the swap file is gone')
      },
    }
    memory.park(at(2), broken)
    memory.readU8(at(2))
    memory.park(at(3), broken)
    memory.translate(at(3), 'write')
    checkSame(
      failures.map((message) => message.includes('the swap file is gone')),
      [true, true],
      'failures told',
    )
  })

  it('guest frames: without a free frame vCPUs wait, devices fail, the VM is notified, and nothing is thrown', async () => {
    const failures: string[] = []
    let relieve: (() => string | undefined) | undefined
    const { memory, host } = create({
      onFailure: (message) => void failures.push(message),
      onShortage: async () => relieve!(),
    })
    memory.fill(0, at(2), 7)
    memory.share(at(1), memory.expose(0) as Hpa)
    memory.fill(at(2), FRAME_SIZE, 7)
    memory.park(at(2), createFiller(true))
    const giveBack = exhaust(host)
    // What is there can be used, and what was never written is zero.
    checkSame(
      [memory.readU8(0), memory.readU8(at(9)), memory.fill(at(9), FRAME_SIZE, 0), failures.length],
      [7, 0, true, 0],
      'what needs no frame',
    )
    checkSame(
      [memory.translate(at(9), 'read'), memory.translate(0, 'write'), memory.translate(at(2), 'read')],
      ['wait', 'wait', 'wait'],
      'vCPUs',
    )
    relieve = () => 'nothing can be reclaimed'
    checkSame(await memory.ready(at(9)), 'nothing can be reclaimed', 'a vCPU that waits in vain')
    const devices: [string, unknown][] = [
      ['writeU8', memory.writeU8(at(9), 1)],
      ['writeU64', memory.writeU64(at(9) - 4, 1n)],
      ['writeBytes', memory.writeBytes(at(9), Uint8Array.of(1))],
      ['fill', memory.fill(at(9), 1, 1)],
      ['a write to a shared page', memory.writeU32(0, 1)],
      ['lease', memory.lease([{ address: at(9), length: 1 }], 'read') !== undefined],
    ]
    checkSame(
      devices.filter(([, outcome]) => outcome !== false),
      [],
      'devices that got a frame',
    )
    checkSame(failures.length, devices.length, 'failures told')
    relieve = () => giveBack() as undefined
    checkSame(await memory.ready(at(9)), undefined, 'a vCPU that waits')
    check(typeof memory.translate(at(9), 'read') === 'number', 'no frame after reclaim')
    checkSame([memory.writeU32(0, 1), memory.readU32(at(1))], [true, 0x0707_0707], 'afterwards')
  })

  it('guest frames: the dirty log has what was written since, once each, ascending', () => {
    const { memory, host } = create({})
    memory.writeU8(0, 1)
    checkSame(memory.takeDirty(), [], 'while off')
    memory.setDirtyLog(true)
    memory.readU8(at(1))
    memory.writeU8(at(9) + 1, 1)
    memory.writeU32(at(4) - 2, 1)
    memory.writeU8(at(9), 1)
    memory.replace(at(11), host.allocateFrame()!)
    checkSame(memory.takeDirty(), [3, 4, 9, 11].map(at), 'dirty frames')
    checkSame(memory.takeDirty(), [], 'taken')
    memory.setDirtyLog(false)
  })

  it('guest frames: another memory that loads the pages reads the same, parked ones included', () => {
    const [one, other] = [create({}).memory, create({}).memory]
    const random = createRandom()
    for (let round = 0; round < 200; round++) one.writeU32(random(one.size - 4), random(2 ** 32))
    one.fill(at(3), FRAME_SIZE, 0xee)
    one.park(at(3), createFiller())
    one.fill(at(5), FRAME_SIZE, 0)
    other.writeU8(at(7), 1)
    other.park(at(8), createFiller())
    const saved: MemoryPage[] = []
    for (const { address, bytes } of one.pages()) saved.push({ address, bytes: bytes.slice() })
    check(!saved.some(({ address }) => address === at(5)), 'a page of zeros was saved')
    checkSame(kindOf(one.state(at(3))), 'parked', 'saving brought a parked page back')
    other.load(saved)
    const [left, right] = [new Uint8Array(one.size), new Uint8Array(one.size)]
    check(one.readBytes(0, left) && other.readBytes(0, right), 'reading all')
    check(
      left.every((byte, index) => byte === right[index]),
      'restored memory differs',
    )
    for (const [address, length] of [
      [one.size, FRAME_SIZE],
      [1, FRAME_SIZE],
      [0, 100],
    ] as const)
      checkThrows(
        () => other.load([{ address: gpa(address), bytes: new Uint8Array(length) }]),
        'snapshot.mismatch',
        `a page at ${address}`,
      )
  })
}
