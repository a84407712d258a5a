/** A network card behind two rings, as a guest's driver meets it. (Xen, "public/io/netif.h") */

import { ALL_OFFLOADS, NO_OFFLOADS, NO_WORK } from '@nonroot/contracts'
import type { CableEnd, FrameOffloads, FrameWork, NetworkBackend } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { entry, FrontRing, splitBench } from '../backends.test.support.ts'
import { NetBack } from './net-back.ts'
import { STATE } from '../split-device.ts'

const [CHECKSUM, MORE, EXTRA] = [1, 4, 8]

function testNetwork(offloads: FrameOffloads = ALL_OFFLOADS) {
  const network = {
    ...{ macAddress: Uint8Array.of(0x52, 0x54, 0, 1, 2, 3), mtu: 1500, room: Infinity, readied: 0 },
    frames: [] as { frame: Uint8Array; work: FrameWork }[],
    card: undefined as CableEnd | undefined,
    connect(card: CableEnd): CableEnd {
      network.card = card
      return {
        offloads,
        receive(frame, work) {
          if (network.room-- <= 0) return false
          network.frames.push({ frame: frame.slice(), work: { ...work } })
          return true
        },
        flush: () => {},
        ready: () => void network.readied++,
        carrier: () => {},
      }
    },
    deliver(frame: Uint8Array, work: Partial<FrameWork> = {}): boolean {
      const taken = network.card!.receive(frame, { ...NO_WORK, ...work })
      network.card!.flush()
      return taken
    },
    close: async () => {},
  }
  return network satisfies NetworkBackend
}

const FEATURES = { 'feature-sg': 1, 'feature-gso-tcpv4': 1, 'feature-gso-tcpv6': 1 }

function start({ offloads = ALL_OFFLOADS, nodes = FEATURES as Record<string, number>, split = false } = {}) {
  const network = testNetwork(offloads)
  const made = splitBench('vif', (context, handle) => new NetBack(network, handle, context))
  const [sendPage, receivePage] = [made.page(), made.page()]
  const send = new FrontRing(made, [sendPage], 12)
  const receive = new FrontRing(made, [receivePage], 8)
  const port = made.port()
  const other = split ? made.port() : port
  made.write({
    'tx-ring-ref': sendPage.reference,
    'rx-ring-ref': receivePage.reference,
    ...(split ? { 'event-channel-tx': port, 'event-channel-rx': other } : { 'event-channel': port }),
    'request-rx-copy': 1,
    ...nodes,
    state: STATE.connected,
  })
  const kick = (): void => void made.events.send(port)
  const answers = (): [id: number, status: number][] =>
    send.take().map((view) => [view.getUint16(0, true), view.getInt16(2, true)])
  let id = 0
  /** Pages for frames that arrive. */
  const offer = (count: number, options = {}): { address: number; reference: number }[] =>
    Array.from({ length: count }, () => {
      const page = made.page(options)
      receive.add(entry(8, [0, 2, id++], [4, 4, page.reference]))
      return page
    })
  const arrived = (): { id: number; flags: number; status: number }[] =>
    receive
      .take()
      .map((view) => ({ id: view.getUint16(0, true), flags: view.getUint16(4, true), status: view.getInt16(6, true) }))
  return { ...made, network, send, receive, port, other, kick, answers, offer, arrived }
}
type Bench = ReturnType<typeof start>

const slot = (id: number, reference: number, size: number, { offset = 0, flags = 0 } = {}): Uint8Array =>
  entry(12, [0, 4, reference], [4, 2, offset], [6, 2, flags], [8, 2, id], [10, 2, size])
const cut = (size: number, type = 1, { kind = 1, flags = 0 } = {}): Uint8Array =>
  entry(12, [0, 1, kind], [1, 1, flags], [2, 2, size], [4, 1, type])

/** An Ethernet header and what follows: TCP over IP of that version. */
function tcp(length: number, version: 4 | 6 = 4): Uint8Array {
  const frame = Uint8Array.from({ length }, (_, index) => index & 0xff)
  frame.set(version === 4 ? [8, 0, 0x45] : [0x86, 0xdd, 0x60], 12)
  if (version === 4) frame.set([0, 0, 64, 6], 20)
  else frame[20] = 6
  return frame
}
/** In a new page of the guest's. */
function put({ page, memory }: Bench, bytes: Uint8Array, offset = 0): number {
  const { address, reference } = page({ readOnly: true })
  memory.writeBytes(address + offset, bytes)
  return reference
}

describe('a card', () => {
  it('says what it can', () => {
    const { read, guest, folder } = start()
    const names = [
      'feature-rx-copy',
      'feature-sg',
      'feature-gso-tcpv4',
      'feature-gso-tcpv6',
      'feature-no-csum-offload',
      'state',
    ]
    expect(names.map(read)).toEqual(['1', '1', '1', '1', '0', '4'])
    expect(guest.read(`${folder}/mac`)).toMatchObject({ value: '52:54:00:01:02:03' })
    expect(names.map(start({ offloads: NO_OFFLOADS }).read)).toEqual(['1', '1', '0', '0', '1', '4'])
  })

  it.each([
    { what: 'frames that move', nodes: { 'request-rx-copy': 0 } },
    { what: 'a ring that is not granted', nodes: { 'rx-ring-ref': 7 } },
    { what: 'a port that waits for no one', nodes: { 'event-channel': 99 } },
  ])('does not connect by $what', ({ nodes }) => {
    const { read, uses } = start({ nodes: nodes as unknown as Record<string, number> })
    expect([read('state'), uses.size]).toEqual(['5', 0])
  })
})

describe('sending', () => {
  it.each([false, true])('carries a frame from one page, with ports of their own: %s', (split) => {
    const bench = start({ split })
    const { send, kick, answers, network, notified, port, uses } = bench
    const frame = tcp(60)
    send.add(slot(5, put(bench, frame, 100), 60, { offset: 100 }))
    kick()
    expect(network.frames).toEqual([{ frame, work: NO_WORK }])
    expect([answers(), notified(port), uses.size]).toEqual([[[5, 0]], true, 2])
  })

  it('gathers a frame from many pages: the first slot has the size of all', () => {
    const bench = start()
    const { send, kick, answers, network } = bench
    const frame = tcp(9000)
    send.add(
      slot(1, put(bench, frame.subarray(0, 1000)), 9000, { flags: MORE }),
      slot(2, put(bench, frame.subarray(1000, 5096)), 4096, { flags: MORE }),
      slot(3, put(bench, frame.subarray(5096)), 3904),
    )
    kick()
    expect(network.frames[0]!.frame).toEqual(frame)
    expect(answers()).toEqual([
      [1, 0],
      [2, 0],
      [3, 0],
    ])
  })

  it.each([
    { version: 4 as const, work: { checksumStart: 34, checksumOffset: 16 } },
    { version: 6 as const, work: { checksumStart: 54, checksumOffset: 16 } },
  ])('leaves the checksum of TCP over IPv$version to the network', ({ version, work }) => {
    const bench = start()
    bench.send.add(slot(1, put(bench, tcp(90, version)), 90, { flags: CHECKSUM }))
    bench.kick()
    expect(bench.network.frames[0]!.work).toEqual({ ...NO_WORK, ...work })
  })

  it('leaves cutting to the network, and answers the slot that says so', () => {
    const bench = start()
    bench.send.add(slot(1, put(bench, tcp(4000)), 4000, { flags: CHECKSUM | EXTRA }), cut(1448))
    bench.kick()
    expect(bench.network.frames[0]!.work).toMatchObject({ checksumStart: 34, segmentSize: 1448, segmentIp: 4 })
    expect(bench.answers()).toEqual([
      [1, 0],
      [0, 1],
    ])
  })

  it.each<[what: string, status: number, slots: (bench: Bench) => Uint8Array[]]>([
    ['a page that is not granted', -1, () => [slot(1, 7, 60)]],
    ['bytes behind the page', -1, (bench) => [slot(1, put(bench, tcp(60)), 60, { offset: 4037 })]],
    ['bytes to the end of the page', 0, (bench) => [slot(1, put(bench, tcp(60), 4036), 60, { offset: 4036 })]],
    ['less than a header', -2, (bench) => [slot(1, put(bench, tcp(60)), 13)]],
    ['a header alone', 0, (bench) => [slot(1, put(bench, tcp(60)), 14)]],
    ['nothing', -2, (bench) => [slot(1, put(bench, tcp(60)), 0)]],
    [
      'a checksum of neither TCP nor UDP',
      -2,
      (bench) => [slot(1, put(bench, new Uint8Array(60)), 60, { flags: CHECKSUM })],
    ],
    ['a checksum behind the end', -2, (bench) => [slot(1, put(bench, tcp(60)), 51, { flags: CHECKSUM })]],
    ['cutting without a checksum', -2, (bench) => [slot(1, put(bench, tcp(60)), 60, { flags: EXTRA }), cut(20)]],
  ])('answers %s with %i, and goes on', (_what, status, slots) => {
    const bench = start()
    bench.send.add(...slots(bench))
    bench.kick()
    expect(bench.answers()[0]).toEqual([1, status])
    bench.send.add(slot(2, put(bench, tcp(60)), 60))
    bench.kick()
    expect(bench.answers()).toEqual([[2, 0]])
    expect(bench.uses.size).toBe(2)
  })

  it.each<[what: string, slots: (bench: Bench) => Uint8Array[]]>([
    ['a frame without its end', (bench) => [slot(1, put(bench, tcp(60)), 60, { flags: MORE })]],
    [
      'a frame of 19 slots',
      (bench) =>
        Array.from({ length: 19 }, (_, n) => slot(n, put(bench, tcp(60)), n ? 10 : 1000, { flags: n < 18 ? MORE : 0 })),
    ],
    [
      'a frame that is shorter than its parts',
      (bench) => [slot(1, put(bench, tcp(60)), 60, { flags: MORE }), slot(2, 7, 60)],
    ],
    ['a slot that is announced and missing', (bench) => [slot(1, put(bench, tcp(60)), 60, { flags: EXTRA })]],
    [
      'a slot of another kind',
      (bench) => [slot(1, put(bench, tcp(60)), 60, { flags: EXTRA }), cut(20, 1, { kind: 2 })],
    ],
    ['segments of nothing', (bench) => [slot(1, put(bench, tcp(60)), 60, { flags: EXTRA }), cut(0)]],
    ['segments of no protocol', (bench) => [slot(1, put(bench, tcp(60)), 60, { flags: EXTRA }), cut(20, 3)]],
    [
      'slots without end',
      (bench) => [
        slot(1, put(bench, tcp(60)), 60, { flags: EXTRA }),
        ...Array.from({ length: 5 }, () => cut(20, 1, { flags: 1 })),
      ],
    ],
  ])('parts with a guest that sends %s', (_what, slots) => {
    const bench = start()
    bench.send.add(...slots(bench))
    bench.kick()
    expect([bench.read('state'), bench.log.lines.length, bench.uses.size, bench.network.frames]).toEqual([
      '5',
      1,
      0,
      [],
    ])
  })

  it('takes a frame of 18 slots', () => {
    const bench = start()
    bench.send.add(
      ...Array.from({ length: 18 }, (_, n) => slot(n, put(bench, tcp(60)), n ? 10 : 200, { flags: n < 17 ? MORE : 0 })),
    )
    bench.kick()
    expect(bench.network.frames[0]!.frame.length).toBe(200)
  })

  it('waits while the network has no room, and loses nothing', () => {
    const bench = start()
    bench.network.room = 1
    for (const id of [1, 2, 3]) bench.send.add(slot(id, put(bench, tcp(60 + id)), 60 + id))
    bench.kick()
    expect(bench.answers()).toEqual([[1, 0]])
    bench.kick()
    bench.network.room = Infinity
    bench.network.card!.ready()
    expect(bench.answers()).toEqual([
      [2, 0],
      [3, 0],
    ])
    expect(bench.network.frames.map(({ frame }) => frame.length)).toEqual([61, 62, 63])
  })

  it('drops frames while the cable is out', () => {
    const bench = start()
    bench.driver.plug(false)
    bench.send.add(slot(1, put(bench, tcp(60)), 60))
    bench.kick()
    expect([bench.answers(), bench.network.frames]).toEqual([[[1, -2]], []])
    bench.driver.plug(true)
    bench.send.add(slot(2, put(bench, tcp(60)), 60))
    bench.kick()
    expect(bench.network.frames).toHaveLength(1)
  })
})

describe('receiving', () => {
  it('writes a frame to a page', () => {
    const { network, offer, arrived, memory, notified, other, uses } = start({ split: true })
    const [page] = offer(1)
    expect(network.deliver(tcp(700))).toBe(true)
    const bytes = new Uint8Array(700)
    memory.readBytes(page!.address, bytes)
    expect([arrived(), bytes, notified(other), uses.size]).toEqual([
      [{ id: 0, flags: 0, status: 700 }],
      tcp(700),
      true,
      2,
    ])
  })

  it('spreads a long frame, with a slot that says how it is to be cut', () => {
    const { network, offer, arrived, memory } = start()
    const pages = offer(4)
    network.deliver(tcp(9000), { checksumStart: 34, checksumOffset: 16, segmentSize: 1448, segmentIp: 4 })
    const [first, extra, ...rest] = arrived()
    expect(first).toEqual({ id: 0, flags: 1 | 2 | MORE | EXTRA, status: 4096 })
    // Type 1, size 1448, TCP over IPv4.
    expect(extra).toMatchObject({ id: 1, flags: 1 })
    expect(rest).toEqual([
      { id: 2, flags: MORE, status: 4096 },
      { id: 3, flags: 0, status: 808 },
    ])
    expect(memory.readU8(pages[2]!.address)).toBe(tcp(9000)[4096])
  })

  it('keeps a frame until there is room, and says so to the network', () => {
    const { network, offer, arrived, kick, receive } = start()
    offer(1)
    expect([network.deliver(tcp(5000)), arrived(), receive.wanted]).toEqual([false, [], 2])
    offer(1)
    kick()
    expect(network.readied).toBe(1)
    expect([network.deliver(tcp(5000)), arrived().length]).toEqual([true, 2])
  })

  it('answers a page that may not be written with an error', () => {
    const { network, offer, arrived } = start()
    offer(1, { readOnly: true })
    network.deliver(tcp(60))
    expect(arrived()).toEqual([{ id: 0, flags: 0, status: -1 }])
  })

  it.each([
    {
      what: 'a checksum',
      nodes: { ...FEATURES, 'feature-no-csum-offload': 1 },
      work: { checksumStart: 34, checksumOffset: 16 },
    },
    {
      what: 'cutting',
      nodes: { 'feature-sg': 1 },
      work: { checksumStart: 34, checksumOffset: 16, segmentSize: 9, segmentIp: 4 as const },
    },
    {
      what: 'cutting, without long frames',
      nodes: { 'feature-gso-tcpv4': 1 },
      work: { checksumStart: 34, checksumOffset: 16, segmentSize: 9, segmentIp: 4 as const },
    },
  ])('drops what leaves $what to a guest that does not do it', ({ nodes, work }) => {
    const { network, offer, arrived, count } = start({ nodes })
    offer(2)
    expect([network.deliver(tcp(60), work), arrived(), count('framesDropped')]).toEqual([true, [], 1])
  })

  it('parts with a guest whose ring is none', () => {
    const { network, receive, read, uses } = start()
    receive.say(257)
    expect([network.deliver(tcp(60)), read('state'), uses.size]).toEqual([true, '5', 0])
  })

  it('drops frames that came before the guest, and lets the network go on when it has gone', () => {
    const { network, write, uses } = start()
    expect(network.deliver(tcp(60))).toBe(false)
    write({ state: STATE.closing })
    expect([network.readied, uses.size, network.deliver(tcp(60))]).toEqual([1, 0, true])
  })
})
