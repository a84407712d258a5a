import {
  createPackedRing,
  createSplitRing,
  createTestGuestMemory,
  createTestHostMemory,
  writeDescriptor,
} from '@nonroot/testkit'
import type { DriverRing } from '@nonroot/testkit'
import { beforeEach, describe, expect, it } from 'vitest'
import type { GuestMemory } from '@nonroot/contracts'
import { PackedQueue, refusePacked } from './packed.ts'
import type { QueueHost, QueueSetup, RingQueue } from './ring-queue.ts'
import { refuseSplit, SplitQueue } from './split.ts'

const RAM = 1 << 20
const AT = 0x4000
const DATA = 0x20000
const TABLE = 0x30000
const SIZE = 8
const FORMATS = [{ format: 'split' }, { format: 'packed' }] as const

let memory: GuestMemory
let notified: number
let reasons: string[]
let ring: DriverRing
let queue: RingQueue

function setUp(format: 'split' | 'packed', options: Partial<QueueSetup> = {}): void {
  memory = createTestGuestMemory({ hostMemory: createTestHostMemory(300), ram: RAM })
  notified = 0
  reasons = []
  const counter = () => ({ value: 0 })
  const host: QueueHost = {
    memory,
    notify: () => notified++,
    broken: (_, reason) => reasons.push(reason),
    buffers: counter(),
    notifications: counter(),
    suppressed: counter(),
  }
  const size = options.size ?? SIZE
  const create = format === 'split' ? createSplitRing : createPackedRing
  ring = create({ memory, at: AT, size, eventIndex: options.eventIndex ?? false })
  const setup = { index: 0, size, indirect: true, eventIndex: false, inOrder: false, ...ring.areas, ...options }
  expect((format === 'split' ? refuseSplit : refusePacked)(setup, host)).toBeUndefined()
  queue = format === 'split' ? new SplitQueue(setup, host) : new PackedQueue(setup, host)
}

const text = (value: string) => new TextEncoder().encode(value)

describe.each(FORMATS)('$format ring', ({ format }) => {
  beforeEach(() => setUp(format))

  it('gives what the driver made available, once, in order', () => {
    expect(queue.pop()).toBeUndefined()
    ring.add([{ address: DATA, length: 3 }])
    ring.add([{ address: DATA + 16, length: 5, writable: true }])
    expect([queue.pop()?.readable, queue.pop()?.writable, queue.pop()]).toEqual([3, 5, undefined])
  })

  it('reads and writes through however many descriptors', () => {
    memory.writeBytes(DATA, text('hello world'))
    ring.add([
      { address: DATA, length: 4 },
      { address: DATA + 4, length: 7 },
      { address: DATA + 0x100, length: 2, writable: true },
      { address: DATA + 0x200, length: 6, writable: true },
    ])
    const chain = queue.pop()!
    const bytes = new Uint8Array(6)
    expect(chain.read(2, bytes)).toBe(true)
    expect(new TextDecoder().decode(bytes)).toBe('llo wo')
    expect(chain.read(6, bytes)).toBe(false)
    expect(chain.write(1, text('abc'))).toBe(true)
    expect([memory.readU8(DATA + 0x101), memory.readU8(DATA + 0x200)]).toEqual([97, 98])
    expect(chain.write(6, text('abc'))).toBe(false)
    expect(chain.fill(2, 6, 7)).toBe(true)
    expect([memory.readU8(DATA + 0x101), memory.readU8(DATA + 0x205)]).toEqual([97, 7])
    queue.push(chain, 8)
    expect(ring.takeUsed()).toEqual([{ id: 0, written: 8 }])
    // A chain that was pushed is dead.
    expect(chain.write(0, bytes)).toBe(false)
  })

  it('goes round the ring many times, out of order', () => {
    const expected: number[] = []
    const found: number[] = []
    for (let round = 0; round < 40; round++) {
      const ids = [1, 2, 3].map((step) =>
        ring.add(
          [
            { address: DATA, length: 4 },
            { address: DATA + 64, length: step, writable: true },
          ].slice(step === 3 ? 1 : 0),
        ),
      )
      const chains = ids.map(() => queue.pop()!)
      for (const index of [1, 2, 0]) {
        queue.push(chains[index]!, index + 1)
        expected.push(ids[index]!)
      }
      found.push(...ring.takeUsed().map(({ id }) => id))
    }
    expect(found).toEqual(expected)
    expect(reasons).toEqual([])
  })

  it('takes indirect descriptors', () => {
    ring.add(
      [
        { address: DATA, length: 4 },
        { address: DATA + 64, length: 600, writable: true },
      ],
      TABLE,
    )
    const chain = queue.pop()!
    expect([chain.readable, chain.writable, chain.elements]).toEqual([4, 600, 2])
    queue.push(chain, 1)
    expect(ring.takeUsed()).toHaveLength(1)
  })

  it('takes indirect tables that are longer than the ring', () => {
    ring.add(
      Array.from({ length: 200 }, (_, index) => ({ address: DATA + index, length: 1 })),
      TABLE,
    )
    expect(queue.pop()?.readable).toBe(200)
  })

  it('MUST ignore the write-only flag in the descriptor that refers to an indirect table', () => {
    ring.add([{ address: DATA, length: 4 }], TABLE)
    const at = ring.areas.descriptors + (format === 'split' ? 12 : 14)
    memory.writeU16(at, memory.readU16(at)! | 2)
    expect(queue.pop()?.readable).toBe(4)
  })

  it('passes over descriptors without bytes', () => {
    ring.add([
      { address: 0xfee00000, length: 0 },
      { address: DATA, length: 4 },
    ])
    expect(queue.pop()?.elements).toBe(1)
  })

  it('gives back the last one it took, wherever in the ring that is', () => {
    for (let round = 1; round <= 3 * SIZE; round++) {
      ring.add([{ address: DATA, length: round }])
      queue.unpop(queue.pop()!)
      const chain = queue.pop()!
      expect(chain.readable).toBe(round)
      queue.push(chain, 0)
      ring.takeUsed()
    }
  })

  it('gives the stretches of memory that a chain is made of, and lends parts of them', () => {
    ring.add([
      { address: DATA, length: 4 },
      { address: DATA + 64, length: 8, writable: true },
      { address: DATA + 128, length: 8, writable: true },
    ])
    const chain = queue.pop()!
    expect([0, 1, 2, 3].map((index) => [chain.elementAddress(index), chain.elementLength(index)])).toEqual([
      [DATA, 4],
      [DATA + 64, 8],
      [DATA + 128, 8],
      [0, 0],
    ])
    expect([chain.readableElements, chain.elementAddress(99)]).toEqual([1, -1])
    const lease = chain.lease(10, 4, 'write')!
    lease.views.forEach((view) => view.fill(7))
    lease.end()
    expect([memory.readU8(DATA + 129), memory.readU32(DATA + 130)]).toEqual([0, 0x0707_0707])
    expect([chain.lease(0, 17, 'write'), chain.lease(1, 4, 'read'), chain.lease(-1, 1, 'read')]).toEqual([
      undefined,
      undefined,
      undefined,
    ])
  })

  it('goes on from a position', () => {
    for (let index = 0; index < 11; index++) {
      ring.add([{ address: DATA, length: 1 }])
      queue.push(queue.pop()!, 0)
      ring.takeUsed()
    }
    ring.add([{ address: DATA, length: 9 }])
    const position = structuredClone(queue.position())
    queue.resume(position)
    expect(queue.pop()?.readable).toBe(9)
  })

  it('is silent once closed, and its chains are dead', () => {
    ring.add([{ address: DATA, length: 4, writable: true }])
    ring.add([{ address: DATA, length: 4 }])
    const chain = queue.pop()!
    queue.close()
    expect(chain.write(0, text('x'))).toBe(false)
    queue.push(chain, 1)
    queue.signal()
    expect([queue.pop(), ring.takeUsed(), notified]).toEqual([undefined, [], 0])
  })

  describe('used buffer notification suppression', () => {
    const use = (count: number) => {
      for (let index = 0; index < count; index++) ring.add([{ address: DATA, length: 1 }])
      for (let index = 0; index < count; index++) queue.push(queue.pop()!, 0)
      queue.signal()
      ring.takeUsed()
    }

    it('MUST send a notification if flags say so, SHOULD NOT otherwise', () => {
      use(1)
      expect(notified).toBe(1)
      queue.signal()
      expect(notified).toBe(1)
      ring.interruptWhen('never')
      use(3)
      expect(notified).toBe(1)
      ring.interruptWhen('always')
      use(2)
      expect(notified).toBe(2)
    })

    it('MUST send one when used_event is passed, and no other (EVENT_IDX)', () => {
      setUp(format, { eventIndex: true })
      for (let round = 0; round < 20; round++) {
        ring.interruptWhen({ after: 3 })
        use(2)
        expect(notified).toBe(round)
        use(2)
        expect(notified).toBe(round + 1)
        use(3)
        expect(notified).toBe(round + 1)
      }
    })
  })

  it('asks to be told of the next buffer only when it has taken all (EVENT_IDX)', () => {
    setUp(format, { eventIndex: true })
    for (let round = 0; round < 30; round++) {
      queue.pop()
      ring.add([{ address: DATA, length: 1 }])
      expect(ring.wantsKick()).toBe(true)
      ring.add([{ address: DATA, length: 1 }])
      expect(ring.wantsKick()).toBe(false)
      queue.push(queue.pop()!, 0)
      queue.push(queue.pop()!, 0)
      ring.takeUsed()
    }
  })

  it('MUST set len, and write at least len bytes, prior to updating the used idx', () => {
    const used = format === 'split' ? ring.areas.device + 2 : ring.areas.descriptors + 14
    const seen: unknown[] = []
    const write = memory.writeU16.bind(memory)
    Object.assign(memory, {
      writeU16(address: number, value: number) {
        const length = memory.readU32(format === 'split' ? ring.areas.device + 8 : ring.areas.descriptors + 8)
        if (address === used) seen.push([length, memory.readU8(DATA), memory.readU8(DATA + 7)])
        return write(address, value)
      },
    })
    ring.add([{ address: DATA, length: 64, writable: true }])
    seen.length = 0
    const chain = queue.pop()!
    chain.fill(0, 8, 0x5a)
    queue.push(chain, 8)
    expect(seen).toEqual([[8, 0x5a, 0x5a]])
  })

  it('uses buffers in the order in which they were made available (IN_ORDER)', () => {
    setUp(format, { inOrder: true })
    for (let round = 0; round < 9; round++) {
      const ids = [0, 1, 2].map((index) => ring.add([{ address: DATA, length: index + 1, writable: true }]))
      const chains = ids.map(() => queue.pop()!)
      queue.push(chains[2]!, 3)
      queue.push(chains[1]!, 2)
      expect(ring.takeUsed()).toEqual([])
      queue.push(chains[0]!, 1)
      expect(ring.takeUsed()).toEqual(ids.map((id, index) => ({ id, written: index + 1 })))
    }
  })
})

// Each historical class of what guests do to their hosts, by name.

/** Put a descriptor into the ring's entry 0 as it is, and make it available. */
function hostile(
  format: 'split' | 'packed',
  ...descriptors: { address: number | bigint; length: number; flags: number; next?: number }[]
): void {
  descriptors.forEach(({ address, length, flags, next = 0 }, index) => {
    const at = AT + 16 * index
    if (format === 'split') writeDescriptor(memory, at, { address, length, flags, next })
    else writeDescriptor(memory, at, { address, length, flags: 0, next: flags | 0x80 })
  })
  if (format === 'packed') return
  memory.writeU16(ring.areas.driver + 4, 0)
  memory.writeU16(ring.areas.driver + 2, 1)
}

const NEXT = 1
const WRITE = 2
const INDIRECT = 4

describe.each(FORMATS)('hostile $format ring', ({ format }) => {
  beforeEach(() => setUp(format))

  const refused = (reason: RegExp): void => {
    expect(queue.pop()).toBeUndefined()
    expect(reasons).toHaveLength(1)
    expect(reasons[0]).toMatch(reason)
    expect(queue.open).toBe(false)
    expect(queue.pop()).toBeUndefined()
    expect(reasons).toHaveLength(1)
  }

  it.each([
    { name: 'beyond RAM', address: RAM, length: 16 },
    { name: 'half beyond RAM', address: RAM - 8, length: 16 },
    { name: 'the local APIC: re-entrant DMA into device registers', address: 0xfee0_0000, length: 16 },
    { name: 'an address that wraps', address: 0xffff_ffff_ffff_fff8n, length: 16 },
    { name: 'an address beyond exact numbers', address: 1n << 53n, length: 16 },
    { name: 'the largest length (a negative one)', address: DATA, length: 0xffff_ffff },
    { name: 'length 0x80000000', address: DATA, length: 0x8000_0000 },
  ])('out-of-memory address: $name', ({ address, length }) => {
    hostile(format, { address, length, flags: WRITE })
    refused(/outside memory/)
  })

  it('a loop in a chain', () => {
    const descriptors = Array.from({ length: SIZE }, (_, index) => ({
      address: DATA,
      length: 4,
      flags: NEXT,
      next: (index + 1) % SIZE,
    }))
    hostile(format, ...descriptors)
    refused(/loop|more than/)
  })

  it('writable before readable', () => {
    hostile(format, { address: DATA, length: 4, flags: WRITE | NEXT, next: 1 }, { address: DATA, length: 4, flags: 0 })
    refused(/device-readable descriptor after/)
  })

  it('an indirect table inside an indirect table, or in a list', () => {
    writeDescriptor(memory, TABLE, { address: TABLE, length: 16, flags: format === 'split' ? INDIRECT : 0, next: 0 })
    hostile(format, { address: TABLE, length: 16, flags: INDIRECT | (format === 'packed' ? NEXT : 0), next: 1 })
    refused(/indirect/)
  })

  it.each([0, 8, 17, 0xffff_fff0])('an indirect table of %i bytes', (length) => {
    hostile(format, { address: TABLE, length, flags: INDIRECT })
    refused(/indirect table/)
  })

  it('an indirect table outside memory', () => {
    hostile(format, { address: RAM - 16, length: 32, flags: INDIRECT })
    refused(/indirect table outside memory/)
  })

  it('an indirect descriptor that was not negotiated', () => {
    setUp(format, { indirect: false })
    hostile(format, { address: TABLE, length: 16, flags: INDIRECT })
    refused(/without VIRTIO_F_INDIRECT_DESC/)
  })

  it('a chain of more than the most descriptors', () => {
    for (let index = 0; index < 2000; index++) {
      const link = format === 'split' ? { flags: NEXT, next: index + 1 } : { flags: 0, next: 0 }
      writeDescriptor(memory, TABLE + 16 * index, { address: DATA, length: 1, ...link })
    }
    hostile(format, { address: TABLE, length: 16 * 2000, flags: INDIRECT })
    refused(/more than 1024 descriptors/)
  })

  it('a chain of more than 2^32 bytes', () => {
    const big = createTestGuestMemory({ hostMemory: createTestHostMemory(16), ram: 1 << 30 })
    Object.assign(memory, { isRam: big.isRam.bind(big) })
    for (let index = 0; index < 5; index++) {
      const link = format === 'split' ? { flags: index < 4 ? NEXT : 0, next: index + 1 } : { flags: 0, next: 0 }
      writeDescriptor(memory, TABLE + 16 * index, { address: 0, length: 1 << 30, ...link })
    }
    hostile(format, { address: TABLE, length: 16 * 5, flags: INDIRECT })
    refused(/2\^32/)
  })
})

describe('hostile split ring', () => {
  beforeEach(() => setUp('split'))

  const refused = (reason: RegExp): void => {
    expect(queue.pop()).toBeUndefined()
    expect(reasons[0]).toMatch(reason)
  }

  it('a head that is no descriptor', () => {
    ring.add([{ address: DATA, length: 1 }])
    memory.writeU16(ring.areas.driver + 4, SIZE)
    refused(/descriptor 8 of 8/)
  })

  it('a next that is no descriptor', () => {
    hostile('split', { address: DATA, length: 1, flags: NEXT, next: 0x7fff })
    refused(/next descriptor 32767 of 8/)
  })

  it('a next outside the indirect table', () => {
    writeDescriptor(memory, TABLE, { address: DATA, length: 1, flags: NEXT, next: 1 })
    hostile('split', { address: TABLE, length: 16, flags: INDIRECT })
    refused(/next descriptor 1 of 1/)
  })

  it('an unbounded queue: more available than there are entries', () => {
    memory.writeU16(ring.areas.driver + 2, SIZE + 1)
    refused(/available index of 9/)
  })

  it('an available index that goes back', () => {
    ring.add([{ address: DATA, length: 1 }])
    queue.push(queue.pop()!, 0)
    memory.writeU16(ring.areas.driver + 2, 0)
    refused(/available index of 0/)
  })

  it('more buffers while as many as there are entries are in flight', () => {
    for (let index = 0; index < SIZE; index++) ring.add([{ address: DATA, length: 1 }])
    for (let index = 0; index < SIZE; index++) expect(queue.pop()).toBeDefined()
    memory.writeU16(ring.areas.driver + 2, SIZE + 1)
    refused(/at most 0 buffers/)
  })

  it('a descriptor made available twice', () => {
    ring.add([{ address: DATA, length: 1 }])
    expect(queue.pop()).toBeDefined()
    memory.writeU16(ring.areas.driver + 6, 0)
    memory.writeU16(ring.areas.driver + 2, 2)
    refused(/twice/)
  })

  it('both INDIRECT and NEXT', () => {
    hostile('split', { address: TABLE, length: 16, flags: INDIRECT | NEXT, next: 1 })
    refused(/both INDIRECT and NEXT/)
  })

  it('MUST handle normal chained descriptors followed by one with INDIRECT', () => {
    writeDescriptor(memory, TABLE, { address: DATA, length: 7, flags: WRITE })
    hostile(
      'split',
      { address: DATA, length: 3, flags: NEXT, next: 1 },
      { address: TABLE, length: 16, flags: INDIRECT },
    )
    const chain = queue.pop()!
    expect([chain.readable, chain.writable]).toEqual([3, 7])
  })

  it('runs through 16-bit indexes', () => {
    queue.resume({ next: 0xfffe, used: 0xfffe, unsignalled: 0 })
    for (let index = 0; index < 4; index++) {
      const slot = (0xfffe + index) & (SIZE - 1)
      memory.writeU16(ring.areas.driver + 4 + 2 * slot, index)
      writeDescriptor(memory, AT + 16 * index, { address: DATA, length: index + 1, flags: 0 })
    }
    memory.writeU16(ring.areas.driver + 2, 2)
    expect([1, 2, 3, 4].map(() => queue.pop()?.readable)).toEqual([1, 2, 3, 4])
    expect(reasons).toEqual([])
  })
})

describe('split ring', () => {
  const useOne = (): void => {
    ring.add([{ address: DATA, length: 1 }])
    queue.push(queue.pop()!, 0)
    queue.signal()
    ring.takeUsed()
  }

  it('MUST ignore the used_event value (no EVENT_IDX)', () => {
    setUp('split')
    for (const value of [0, 1, 7, 0x8000, 0xffff]) {
      memory.writeU16(ring.areas.driver + 4 + 2 * SIZE, value)
      const before = notified
      useOne()
      expect(notified).toBe(before + 1)
    }
  })

  it('MUST ignore the lower bit of flags (EVENT_IDX)', () => {
    setUp('split', { eventIndex: true })
    memory.writeU16(ring.areas.driver, 1)
    memory.writeU16(ring.areas.driver + 4 + 2 * SIZE, 0)
    useOne()
    expect(notified).toBe(1)
    useOne()
    expect(notified).toBe(1)
  })

  it.each([false, true])('MUST set flags to 0 or 1, with EVENT_IDX to 0: EVENT_IDX %s', (eventIndex) => {
    setUp('split', { eventIndex })
    for (let round = 0; round < 20; round++) {
      useOne()
      queue.pop()
      expect(memory.readU16(ring.areas.device)).toBe(0)
    }
  })
})

describe('packed ring', () => {
  beforeEach(() => setUp('packed'))

  it.each([
    { name: 'as it was at first', flags: 0 },
    { name: 'used already', flags: 0x8080 },
    { name: 'of the other round', flags: 0x8000 },
  ])('MUST NOT use a descriptor unless it observes AVAIL being changed: $name', ({ flags }) => {
    writeDescriptor(memory, AT, { address: DATA, length: 4, flags: 0, next: flags })
    expect([queue.pop(), reasons]).toEqual([undefined, []])
  })

  it('MUST NOT change a descriptor after changing its USED bit', () => {
    const writes: number[] = []
    for (const [name, size] of [
      ['writeU16', 2],
      ['writeU32', 4],
    ] as const) {
      const write = memory[name].bind(memory)
      Object.assign(memory, {
        [name]: (address: number, value: number) => {
          writes.push(address + size)
          return write(address, value)
        },
      })
    }
    ring.add([{ address: DATA, length: 4 }])
    ring.add([{ address: DATA, length: 4, writable: true }])
    writes.length = 0
    queue.push(queue.pop()!, 0)
    queue.push(queue.pop()!, 4)
    queue.signal()
    // The flags are a descriptor's last two bytes, and nothing of it is written after them.
    expect(writes).toEqual([AT + 12, AT + 14, AT + 16, AT + 28, AT + 30, AT + 32])
  })
})

describe('rings that cannot be used', () => {
  const host = { memory: createTestGuestMemory({ hostMemory: createTestHostMemory(8), ram: RAM }) }
  const good: QueueSetup = {
    index: 0,
    size: 8,
    descriptors: 0x1000,
    driver: 0x2000,
    device: 0x3000,
    indirect: false,
    eventIndex: false,
    inOrder: false,
  }

  it.each([
    { change: { size: 0 }, reason: /queue size of 0/ },
    { change: { size: 3 }, reason: /not a power of two/ },
    { change: { size: 65536 }, reason: /queue size/ },
    { change: { descriptors: 0x1008 }, reason: /aligned to 16/ },
    { change: { driver: 0x2001 }, reason: /aligned to 2/ },
    { change: { device: 0x3002 }, reason: /aligned to 4/ },
    { change: { descriptors: RAM - 64 }, reason: /descriptor table outside/ },
    { change: { driver: RAM - 2 }, reason: /available ring outside/ },
    { change: { device: 2 ** 63 }, reason: /used ring outside/ },
  ])('split: $change', ({ change, reason }) => {
    expect(refuseSplit({ ...good, ...change }, host)).toMatch(reason)
  })

  it.each([
    { change: { size: 0 }, reason: /queue size of 0/ },
    { change: { size: 32769 }, reason: /queue size/ },
    { change: { descriptors: 0x1008 }, reason: /aligned to 16/ },
    { change: { driver: 0x2002 }, reason: /aligned to 4/ },
    { change: { device: 0x3002 }, reason: /aligned to 4/ },
    { change: { descriptors: RAM - 64 }, reason: /descriptor ring outside/ },
    { change: { driver: RAM }, reason: /driver event/ },
    { change: { device: 2 ** 60 }, reason: /device event/ },
  ])('packed: $change', ({ change, reason }) => {
    expect(refusePacked({ ...good, ...change }, host)).toMatch(reason)
  })

  it('packed: any size', () => {
    expect(refusePacked({ ...good, size: 3 }, host)).toBeUndefined()
  })
})
