/** Guests that write anything into rings and the store: nothing throws, no grant stays in use, and a guest that behaves is served afterwards. */

import { NO_OFFLOADS } from '@nonroot/contracts'
import type { BlockBackend, NetworkBackend } from '@nonroot/contracts'
import { createRandom } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { entry, FrontRing, splitBench, type SplitBench } from './backends.test.support.ts'
import { BlockBack } from './block.ts'
import { NetBack } from './net/net-back.ts'
import { ringEntries } from './ring.ts'
import { STATE } from './split-device.ts'

const SEEDS = [1, 2, 3, 4]
const STEPS = 1000
const SIZE = 64 * 1024

const disk = (): BlockBackend => ({
  ...{ size: SIZE, sectorSize: 512, readOnly: false },
  read: async (_offset, into) => void into.fill(1),
  write: async () => {},
  flush: async () => {},
  discard: async () => {},
  close: async () => {},
})

const network = (random: (below: number) => number): NetworkBackend => ({
  ...{ macAddress: Uint8Array.of(2, 0, 0, 0, 0, 1), mtu: 1500 },
  connect: () => ({
    offloads: NO_OFFLOADS,
    receive: () => random(4) > 0,
    flush: () => {},
    ready: () => {},
    carrier: () => {},
  }),
  close: async () => {},
})

const settle = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))
const bytes = (random: (below: number) => number, length: number): Uint8Array =>
  // Small values choose operations, flags and counts; others are anything.
  Uint8Array.from({ length }, () => (random(3) === 0 ? random(256) : random(12)))

interface Page {
  readonly address: number
  readonly reference: number
}
/** Nearly a request: of pages that are granted, of lengths and places at both sides of their bounds. */
type Make = (random: (below: number) => number, reference: () => number) => Uint8Array
const blockRequest: Make = (random, reference) =>
  entry(
    112,
    [0, 1, random(8)],
    [1, 1, random(13)],
    [8, 8, random(1000)],
    [16, 8, random(130)],
    ...Array.from({ length: 11 }, (_, n) => [24 + n * 8, 4, random(20) ? reference() : random(2 ** 32)] as const),
    ...Array.from({ length: 11 }, (_, n) => [28 + n * 8, 1, random(3)] as const),
    ...Array.from({ length: 11 }, (_, n) => [29 + n * 8, 1, 2 + random(7)] as const),
  )
const netRequest: Make = (random, reference) =>
  entry(
    12,
    [0, 4, random(20) ? reference() : random(2 ** 32)],
    [4, 2, random(4096)],
    [6, 2, random(10) ? 0 : random(16)],
    [8, 2, random(256)],
    [10, 2, random(1600)],
  )

/** One thing that a guest does: to a ring, to its nodes, or to its port. */
function act(
  made: SplitBench,
  random: (below: number) => number,
  pages: readonly Page[],
  port: number,
  make: Make,
): void {
  const page = pages[random(pages.length)]!
  const reference = (): number => pages[random(pages.length)]!.reference
  const { memory } = made
  switch (random(24)) {
    case 0:
      return made.write({ state: random(9) })
    case 1:
      return made.write({
        'ring-ref': random(2) ? reference() : pages[0]!.reference,
        'tx-ring-ref': random(2) ? reference() : pages[0]!.reference,
        'rx-ring-ref': random(2) ? reference() : pages[1]!.reference,
      })
    case 2:
      return void memory.writeU32(page.address + 4 * random(4), random(2) ? random(40) : random(2 ** 32))
    case 3:
      return void memory.writeU32(page.address + 64 + 4 * random(1000), random(2) ? reference() : random(2 ** 32))
    case 4:
      return void memory.writeBytes(page.address + 64 + random(3800), bytes(random, 112))
    case 5:
    case 6:
      return made.write({ state: random(2) ? STATE.initialising : STATE.connected })
    case 7:
    case 8:
    case 9:
      return void made.events.send(port)
    default: {
      // The next request in one of the rings, which this makes one longer.
      const ring = pages[random(2)]!.address
      const request = make(random, reference)
      const producer = memory.readU32(ring)!
      memory.writeBytes(ring + 64 + (producer % ringEntries(1, request.length)) * request.length, request)
      memory.writeU32(ring, producer + 1)
    }
  }
}

describe.each(SEEDS)('with seed %i', (seed) => {
  it('a disk bears it', async () => {
    const random = createRandom(seed)
    const made = splitBench('vbd', (context, handle, update) => new BlockBack(disk(), handle, context, update))
    const pages = Array.from({ length: 4 }, () => made.page())
    const port = made.port()
    made.write({ 'ring-ref': pages[0]!.reference, 'event-channel': port, state: STATE.initialised })
    for (let step = 0; step < STEPS; step++) {
      act(made, random, pages, port, blockRequest)
      if (random(8) === 0) await settle()
    }
    await settle()
    expect(Math.min(made.count('reads'), made.count('writes'), made.count('errors'))).toBeGreaterThan(0)
    made.write({ state: STATE.closed })
    await settle()
    expect([made.uses.size, made.read('state')]).toEqual([0, '6'])

    const [ringPage, target] = [made.page(), made.page()]
    const ring = new FrontRing(made, [ringPage], 112)
    made.write({ state: STATE.initialising })
    made.write({ 'ring-ref': ringPage.reference, state: STATE.initialised })
    ring.add(entry(112, [1, 1, 1], [8, 8, 9], [24, 4, target.reference], [29, 1, 7]))
    made.events.send(port)
    await settle()
    expect(ring.take().map((view) => view.getInt16(10, true))).toEqual([0])
  })

  it('a card bears it', () => {
    const random = createRandom(seed)
    const made = splitBench('vif', (context, handle) => new NetBack(network(random), handle, context))
    const pages = Array.from({ length: 4 }, () => made.page())
    const port = made.port()
    const nodes = { 'tx-ring-ref': pages[0]!.reference, 'rx-ring-ref': pages[1]!.reference, 'event-channel': port }
    made.write({ ...nodes, 'request-rx-copy': 1, 'feature-sg': 1, state: STATE.connected })
    for (let step = 0; step < STEPS; step++) {
      act(made, random, pages, port, netRequest)
      if (random(8) === 0)
        made.driver.receive(bytes(random, 14 + random(9000)), {
          checksumStart: -1,
          checksumOffset: 0,
          segmentSize: 0,
          segmentIp: 0,
        })
      if (random(8) === 0) made.driver.flush()
      if (random(8) === 0) made.driver.ready()
    }
    expect(
      Math.min(made.count('framesSent'), made.count('framesReceived'), made.count('framesDropped')),
    ).toBeGreaterThan(0)
    made.write({ state: STATE.closed })
    expect([made.uses.size, made.read('state')]).toEqual([0, '6'])
  })
})
