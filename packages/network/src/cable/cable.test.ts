import { createFrameWork, NO_WORK } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { FakeCard, FakeHost, FakeStream, settle, surroundings } from '../testing/fake-host.ts'
import { GUEST_MAC } from '../testing/guest.ts'
import { Segment } from '../tcp/segment.ts'
import { fold, pseudoHeader, sum } from '../wire/checksum.ts'
import { Protocol } from '../wire/facts.ts'
import { FrameWriter } from '../wire/frame-writer.ts'
import { Packet } from '../wire/packet.ts'
import { withCapture } from './capture.ts'
import { FrameFinisher } from './finish-frame.ts'
import { FrameStream } from './frame-stream.ts'
import { withImpairment } from './impair.ts'

const four = [Uint8Array.of(10, 0, 0, 1), Uint8Array.of(10, 0, 0, 2)]
const six = four.map((address) => Uint8Array.of(0xfd, ...new Array<number>(11).fill(0), ...address))

/** A TCP frame that is left to be cut, as a driver makes it. */
function large(addresses: readonly Uint8Array[], length: number) {
  const writer = new FrameWriter()
  writer.ip({ destination: GUEST_MAC, source: GUEST_MAC }, addresses[0]!, addresses[1]!, Protocol.tcp)
  const { view, payload, bytes } = writer
  view.setUint32(payload + 4, 0xffff_ff00)
  view.setUint16(payload + 12, (8 << 12) | 0x19)
  for (let index = 0; index < length; index++) bytes[payload + 32 + index] = index * 7
  const end = payload + 32 + length
  writer.finishTransport(end, 16, true)
  Object.assign(writer.work, { segmentSize: 1000, segmentIp: addresses[0]!.length === 4 ? 4 : 6 })
  return { frame: bytes.slice(0, end), work: writer.work, data: bytes.slice(payload + 32, end) }
}

describe('what is left undone', () => {
  it.each([
    { ip: 'IPv4', addresses: four, length: 4500, sizes: [1000, 1000, 1000, 1000, 500] },
    { ip: 'IPv6', addresses: six, length: 2000, sizes: [1000, 1000] },
    { ip: 'IPv4', addresses: four, length: 1, sizes: [1] },
  ])('cuts TCP over $ip: $length bytes', ({ addresses, length, sizes }) => {
    const { frame, work, data } = large(addresses, length)
    const pieces: { sequence: number; flags: number; data: Uint8Array }[] = []
    new FrameFinisher().finish(frame, work, (piece) => {
      const packet = new Packet()
      const segment = new Segment()
      // Header checksum and lengths are Packet's affair.
      expect(packet.parse(piece)).toBe(true)
      const { bytes, view, payload, end, addressLength } = packet
      const pseudo = pseudoHeader(bytes, packet.addresses, 2 * addressLength, Protocol.tcp, end - payload)
      expect(fold(sum(bytes, payload, end, pseudo))).toBe(0xffff)
      segment.parse(bytes, view, payload, end)
      pieces.push({ sequence: segment.sequence, flags: segment.flags, data: bytes.slice(segment.payload, end) })
    })
    expect(pieces.map((piece) => piece.data.length)).toEqual(sizes)
    expect(Buffer.concat(pieces.map((piece) => piece.data)).equals(data)).toBe(true)
    expect(pieces.map(({ sequence }) => (sequence + 0x100) >>> 0)).toEqual(sizes.map((_, index) => index * 1000))
    // FIN and PSH are the last segment's.
    expect(pieces.map(({ flags }) => flags)).toEqual(
      sizes.map((_, index) => (index === sizes.length - 1 ? 0x19 : 0x10)),
    )
  })

  it.each([
    { what: 'a checksum in the Ethernet header', change: { checksumStart: 2, segmentSize: 0 } },
    { what: 'a checksum behind the end', change: { checksumStart: 4550, segmentSize: 0 } },
    { what: 'segments of another version', change: { segmentIp: 6 as const } },
    { what: 'segments of TCP that is elsewhere', change: { checksumStart: 38 } },
    { what: 'more segments than any driver asks for', change: { segmentSize: 1 } },
  ])('makes nothing of $what', ({ change }) => {
    const { frame, work } = large(four, 4500)
    const made: number[] = []
    new FrameFinisher().finish(frame, { ...work, ...change }, (piece) => made.push(piece.length))
    expect(made).toEqual([])
  })

  it('makes checksums', () => {
    const { frame, work } = large(four, 100)
    const made: Uint8Array[] = []
    new FrameFinisher().finish(frame, { ...work, segmentSize: 0 }, (done) => made.push(done.slice()))
    const pseudo = pseudoHeader(made[0]!, 26, 8, Protocol.tcp, made[0]!.length - 34)
    expect(fold(sum(made[0]!, 34, made[0]!.length, pseudo))).toBe(0xffff)
  })
})

describe('frames over a stream', () => {
  function bench() {
    const fake = new FakeStream()
    const frames: number[][] = []
    const state = { room: Infinity, ready: 0, closed: 0 }
    const stream = new FrameStream(fake.stream, {
      frame: (frame) => state.room-- > 0 && frames.push([...frame]) > 0,
      flush: () => {},
      ready: () => void state.ready++,
      closed: () => void state.closed++,
    })
    return { fake, frames, state, stream }
  }
  const frame = (first: number, length = 14) => new Uint8Array(length).fill(first, 0, 1)
  const message = (...frames: Uint8Array[]) =>
    Uint8Array.from(frames.flatMap((each) => [0, 0, each.length >> 8, each.length & 255, ...each]))

  it('have their length before them, big-endian', () => {
    const { fake, stream } = bench()
    stream.send(frame(7, 300))
    stream.send(frame(8))
    stream.flush()
    expect(Buffer.concat(fake.received).equals(message(frame(7, 300), frame(8)))).toBe(true)
  })

  it('come in whatever pieces', () => {
    const bytes = message(frame(1), frame(2, 20), frame(3))
    for (let size = 1; size <= bytes.length; size++) {
      const { fake, frames } = bench()
      for (let at = 0; at < bytes.length; at += size) fake.say(bytes.subarray(at, at + size))
      expect(frames.map(([first]) => first)).toEqual([1, 2, 3])
    }
  })

  it('wait where there is no room, and the stream with them', () => {
    const { fake, frames, state, stream } = bench()
    state.room = 1
    fake.say(message(frame(1), frame(2), frame(3)))
    expect([frames.length, fake.paused]).toEqual([1, true])
    // What was on its way.
    fake.say(message(frame(4)))
    state.room = 9
    stream.resume()
    expect([frames.map(([first]) => first), fake.paused]).toEqual([[1, 2, 3, 4], false])
  })

  it('find no room where the host takes nothing', () => {
    const { fake, state, stream } = bench()
    fake.slow = true
    let sent = 0
    while (stream.room() && sent < 1e5) {
      stream.send(frame(1, 1500))
      sent++
    }
    expect(sent * 1504).toBeGreaterThan(1024 * 1024)
    expect(sent * 1504).toBeLessThan(1024 * 1024 + 2000)
    fake.takeAll()
    expect([state.ready, stream.room()]).toEqual([1, true])
  })

  it('that are too long end the stream; too short ones are passed over', () => {
    const { fake, frames, state } = bench()
    fake.say(Uint8Array.of(0, 0, 0, 2, 9, 9))
    fake.say(message(frame(1)))
    expect([frames.length, state.closed]).toEqual([1, 0])
    fake.say(Uint8Array.of(0, 1, 0, 14))
    expect([state.closed, fake.destroyed]).toEqual([1, true])
    fake.say(message(frame(1)))
    expect(frames).toHaveLength(1)
  })
})

const emptyNetwork = () => {
  const far = new FakeCard()
  const near: { card: FakeCard | undefined } = { card: undefined }
  const network = {
    macAddress: GUEST_MAC,
    mtu: 1500,
    connect: (card: unknown) => ((near.card = card as FakeCard), far),
    close: async () => {},
  }
  return { network, far, near }
}

describe('captures', () => {
  it('have all frames, as Wireshark reads them', async () => {
    const { network, near } = emptyNetwork()
    const host = new FakeHost()
    const captured = withCapture(network as never, await host.openCapture())
    const around = surroundings()
    const far = captured.connect(new FakeCard(), around)
    far.receive(new Uint8Array(60).fill(1), NO_WORK)
    around.clock.advanceNs(1.5e9)
    near.card!.receive(new Uint8Array(70).fill(2), NO_WORK)
    const [header, first, second] = host.captured.map((bytes) => new DataView(bytes.buffer))
    expect([header!.getUint32(0, true), header!.getUint16(4, true), header!.getUint32(20, true)]).toEqual([
      0xa1b23c4d, 2, 1,
    ])
    expect([first!.byteLength, second!.byteLength, second!.getUint32(8, true)]).toEqual([76, 86, 70])
    const time = (record: DataView) => record.getUint32(0, true) * 1e9 + record.getUint32(4, true)
    expect(Math.abs(time(second!) - time(first!) - 1.5e9)).toBeLessThan(1000)
  })
})

describe('bad cables', () => {
  const through = (impair: object, count: number) => {
    const { network, far } = emptyNetwork()
    const around = surroundings()
    const end = withImpairment(network as never, impair).connect(new FakeCard(), around)
    for (let index = 0; index < count; index++) {
      end.receive(Uint8Array.of(index & 255, index >> 8, ...new Array<number>(12).fill(0)), createFrameWork())
      end.flush()
      around.clock.advanceNs(1e5)
      around.clock.runExpired()
    }
    around.clock.advanceNs(1e9)
    around.clock.runExpired()
    return far.frames.map((frame) => frame[0]! | (frame[1]! << 8))
  }

  it('lose', () => {
    const arrived = through({ loss: 0.1 }, 2000).length
    expect(arrived).toBeGreaterThan(1700)
    expect(arrived).toBeLessThan(1900)
  })

  it('duplicate, delay and reorder', () => {
    const arrived = through({ duplicate: 0.1, delayMs: 5, reorder: 0.1 }, 1000)
    expect(new Set(arrived).size).toBe(1000)
    expect(arrived.length).toBeGreaterThan(1050)
    expect(arrived.some((value, index) => index > 0 && value < arrived[index - 1]!)).toBe(true)
  })

  it('are the same for the same seed', () => {
    expect(through({ loss: 0.3, seed: 7 }, 100)).toEqual(through({ loss: 0.3, seed: 7 }, 100))
    expect(through({ loss: 0.3, seed: 7 }, 100)).not.toEqual(through({ loss: 0.3, seed: 8 }, 100))
  })

  it('are good by default', async () => {
    expect(through({}, 50)).toEqual(Array.from({ length: 50 }, (_, index) => index))
    await settle()
  })
})
