/** Guests gone wrong, for a second: random frames, TCP that is nearly right, floods. For longer: NONROOT_FUZZ_SECONDS=1800, and NONROOT_FUZZ_SEED repeats. */

import { createRandom } from '@nonroot/testkit'
import { expect, it } from 'vitest'
import { FakeStream } from '../testing/fake-host.ts'
import { Guest, ip } from '../testing/guest.ts'
import { Flag } from '../tcp/facts.ts'
import { Packet } from '../wire/packet.ts'
import { Address4, Address6 } from './addresses.ts'

type Random = (below: number) => number

const SECONDS = Number(process.env['NONROOT_FUZZ_SECONDS'] ?? 1)
const SEED = Number(process.env['NONROOT_FUZZ_SEED'] ?? Date.now() % 2 ** 31)
const REMOTES = [
  ip('192.0.2.1'),
  Address4.gateway,
  Address4.dns,
  ip('127.0.0.1'),
  ip('10.0.2.99'),
  ip('255.255.255.255'),
  Address6.gateway,
  Address6.dns,
  Address6.allNodes,
]
const pick = <T>(random: Random, list: readonly T[]): T => list[random(list.length)]!

/** A frame that may make sense, of which some bytes may then be changed. */
function frame(guest: Guest, random: Random, initial: number): Uint8Array {
  const remote = pick(random, REMOTES)
  const kinds = [
    () =>
      guest.tcp(remote, pick(random, [80, 53, 0]), random(64), {
        seq: pick(random, [0, 1, 100, 2 ** 32 - 1, random(2 ** 32), random(300_000)]),
        ack: (initial + pick(random, [0, 1, 2, random(70_000), random(2 ** 32)])) >>> 0,
        from: 6000 + random(4),
        data: random(2) ? 'x'.repeat(random(1400)) : '',
        window: pick(random, [0, 1, 65535, random(65536)]),
      }),
    () =>
      guest.tcp(ip('192.0.2.1'), 80, pick(random, [Flag.syn, Flag.ack, Flag.ack, Flag.ack | Flag.fin]), {
        seq: 1 + random(20_000),
        ack: (initial + 1 + random(20_000)) >>> 0,
        from: 6000 + random(4),
        data: 'y'.repeat(random(1400)),
      }),
    () =>
      guest.udp(
        remote,
        pick(random, [53, 67, 7, 0]),
        Uint8Array.from({ length: random(600) }, () => random(256)),
        random(65536),
      ),
    () =>
      guest.icmp(
        remote,
        [
          pick(random, [8, 0, 128, 133, 135, random(256)]),
          0,
          0,
          0,
          ...Array.from({ length: random(60) }, () => random(256)),
        ],
        pick(random, [64, 255]),
      ),
    () => guest.arp(remote.subarray(0, 4)),
    () => Uint8Array.from({ length: 14 + random(200) }, () => random(256)),
  ]
  const made = pick(random, kinds)()
  const changes = random(3) === 0 ? random(8) : 0
  for (let change = 0; change < changes; change++) made[random(made.length)] = random(256)
  return random(20) === 0 ? made.subarray(0, Math.max(14, random(made.length))) : made
}

async function once(random: Random): Promise<void> {
  const guest = new Guest({ loopback: 'open', forward: ['2222:22', 'udp:127.0.0.1:5353:53'] })
  await guest.network.listen()
  const services = ['192.0.2.1:80', '127.0.0.1:80', '::1:80'].map((address) => guest.host.serve(address))
  const rounds = 200 + random(800)
  for (let round = 0; round < rounds; round++) {
    guest.network.receive(frame(guest, random, guest.initial), {
      checksumStart: pick(random, [-1, -1, 34]),
      checksumOffset: 16,
      segmentSize: pick(random, [0, 1, 1000]),
      segmentIp: pick(random, [0, 4, 6]),
    })
    if (random(4) === 0) guest.network.flush()
    if (random(16) === 0) outside(guest, services.flat(), random)
    if (random(16) === 0) guest.card.room = random(4)
    if (random(16) === 0) {
      guest.card.room = Infinity
      guest.network.ready()
    }
    if (random(40) === 0) await guest.later()
    if (random(40) === 0) {
      guest.around.clock.advanceNs(random(120) * 1e9)
      guest.around.clock.runExpired()
    }
    // All that comes back is well-formed.
    for (const sent of guest.card.take())
      if (!new Packet().parse(sent)) throw new Error(`a broken frame: ${Buffer.from(sent).toString('hex')}`)
  }
  expect(guest.connections).toBeLessThanOrEqual(4096)
  // Nothing waits for ever: a guest that says no more is forgotten.
  guest.card.room = Infinity
  for (const stream of services.flat()) if (!stream.destroyed) stream.handlers?.close()
  for (let hour = 0; hour < 40; hour++) {
    await guest.later()
    guest.around.clock.advanceNs(600e9)
    guest.around.clock.runExpired()
  }
  expect(guest.connections).toBe(0)
  await guest.network.close()
}

/** Programs of the host. */
function outside(guest: Guest, streams: readonly FakeStream[], random: Random): void {
  const stream = streams[random(Math.max(1, streams.length))]
  if (stream?.handlers && !stream.destroyed) {
    if (random(3)) stream.say('z'.repeat(random(70_000)))
    else if (random(2)) stream.slow = !stream.slow
    else stream.handlers.end()
  }
  if (random(10) === 0)
    guest.host.listening.get(2222)!({ stream: new FakeStream().stream, host: '127.0.0.1', port: 1024 + random(60_000) })
  for (const { handlers } of guest.host.sockets.slice(-3)) {
    if (random(4) === 0)
      handlers.datagram(
        new Uint8Array(random(2000)),
        pick(random, ['192.0.2.1', '127.0.0.1', '::1', 'fe80::1%eth0']),
        random(65536),
      )
    if (random(20) === 0) handlers.refused()
  }
}

it(`nothing that a guest sends gets out (seed ${SEED})`, { timeout: SECONDS * 1000 + 60_000 }, async () => {
  const random = createRandom(SEED)
  const end = Date.now() + SECONDS * 1000
  do await once(random)
  while (Date.now() < end)
})
