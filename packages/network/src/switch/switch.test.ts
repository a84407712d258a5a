import { NO_OFFLOADS, NO_WORK } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { FakeCard } from '../testing/fake-host.ts'
import { Switch, SwitchPort } from './switch.ts'

const mac = (last: number) => [0x52, 0x54, 0, 0, 0, last]
const EVERYONE = [255, 255, 255, 255, 255, 255]
const frame = (to: readonly number[], from: readonly number[], length = 60) => {
  const bytes = new Uint8Array(length)
  bytes.set(to)
  bytes.set(from, 6)
  return bytes
}

function bench(count: number) {
  const learning = new Switch()
  const cards = Array.from({ length: count }, () => new FakeCard())
  const ports = cards.map((card) => new SwitchPort(card))
  for (const port of ports) learning.add(port)
  return {
    learning,
    cards,
    ports,
    send: (port: number, bytes: Uint8Array) => {
      learning.forward(ports[port]!, bytes, NO_WORK)
      learning.flush()
      return cards.map((card) => card.take().length)
    },
  }
}

describe('a switch', () => {
  it('sends to all until it knows where, and never back', () => {
    const { send } = bench(3)
    expect(send(0, frame(mac(2), mac(1)))).toEqual([0, 1, 1])
    expect(send(1, frame(mac(1), mac(2)))).toEqual([1, 0, 0])
    expect(send(0, frame(mac(2), mac(1)))).toEqual([0, 1, 0])
    expect(send(0, frame(mac(1), mac(9)))).toEqual([0, 0, 0])
    expect(send(0, frame(EVERYONE, mac(1)))).toEqual([0, 1, 1])
  })

  it('learns anew where somebody moved, and forgets who left', () => {
    const { send, learning, ports } = bench(3)
    send(0, frame(EVERYONE, mac(1)))
    send(2, frame(EVERYONE, mac(1)))
    expect(send(1, frame(mac(1), mac(2)))).toEqual([0, 0, 1])
    learning.remove(ports[2]!)
    expect(send(1, frame(mac(1), mac(2)))).toEqual([1, 0, 0])
  })

  it('takes nothing from a group address', () => {
    expect(bench(2).send(0, frame(EVERYONE, [1, 0, 0x5e, 0, 0, 1]))).toEqual([0, 0])
  })

  it('remembers a bounded number of addresses', () => {
    const { send, learning } = bench(2)
    for (let count = 0; count < 5000; count++) send(0, frame(EVERYONE, [2, 0, 0, 0, count >> 8, count & 255]))
    expect(learning.addresses).toBe(1024)
  })

  it('a port that takes nothing holds up no other, and keeps a bounded number of frames', () => {
    const { send, cards, ports } = bench(3)
    cards[1]!.room = 0
    for (let count = 0; count < 2000; count++) expect(send(0, frame(EVERYONE, mac(1), 1514))[2]).toBe(1)
    expect(ports[1]!.waiting).toBe(512)
    cards[1]!.room = Infinity
    ports[1]!.drain()
    expect([cards[1]!.frames.length, ports[1]!.waiting]).toEqual([512, 0])
  })

  it('keeps a bounded number of bytes for a port, each time anew', () => {
    const { send, cards, ports } = bench(2)
    for (let round = 0; round < 2; round++) {
      cards[1]!.room = 0
      for (let count = 0; count < 40; count++) send(0, frame(EVERYONE, mac(1), 64 * 1024))
      expect(ports[1]!.waiting).toBe(16)
      cards[1]!.room = Infinity
      ports[1]!.drain()
      expect(cards[1]!.take()).toHaveLength(16)
    }
  })

  it('frames that wait stay as they were, and in order', () => {
    const { send, cards, ports } = bench(2)
    const bytes = frame(EVERYONE, mac(1))
    cards[1]!.room = 0
    for (const value of [1, 2]) {
      bytes[20] = value
      send(0, bytes)
    }
    cards[1]!.room = 1
    bytes[20] = 3
    send(0, bytes)
    bytes[20] = 0
    cards[1]!.room = Infinity
    ports[1]!.drain()
    expect(cards[1]!.take().map((each) => each[20])).toEqual([1, 2, 3])
  })

  it('sends nothing to a port that is off', () => {
    const { send, ports } = bench(3)
    ports[1]!.on = false
    expect(send(0, frame(EVERYONE, mac(1)))).toEqual([0, 0, 1])
  })

  it('finishes frames for those that take complete ones only', () => {
    const { learning, cards, ports } = bench(2)
    cards[1]!.offloads = NO_OFFLOADS
    const bytes = frame(mac(2), mac(1), 100)
    learning.forward(ports[0]!, bytes, { checksumStart: 34, checksumOffset: 16, segmentSize: 0, segmentIp: 0 })
    learning.flush()
    expect([cards[1]!.works[0], cards[1]!.frames[0]![50]]).toEqual([NO_WORK, 0xff])
  })
})
