import { describe, expect, it } from 'vitest'
import { Guest, ip } from '../testing/guest.ts'
import { Flag } from '../tcp/facts.ts'
import { Address4, Address6, ALL_NODES_MAC } from './addresses.ts'

const outside = ip('192.0.2.1')
const SYN = Flag.syn
const echo4 = [8, 0, 0, 0, 1, 2, 3, 4, 5, 6]

describe('neighbours', () => {
  it.each([
    { who: Address4.gateway, answer: ['arp reply 10.0.2.2 is 52:55:a:0:2:2'] },
    { who: Address4.dns, answer: ['arp reply 10.0.2.3 is 52:55:a:0:2:2'] },
    // Nobody answers for the guest itself, or it would think its address taken.
    { who: Address4.guest, answer: [] },
    { who: ip('10.0.2.99'), answer: [] },
  ])('ARP for $who', ({ who, answer }) => {
    const guest = new Guest()
    expect(guest.send(guest.arp(who))).toEqual(answer)
  })

  it('advertises a router, a prefix and a name server', () => {
    const guest = new Guest()
    const solicit = guest.icmp(
      Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2),
      [133, 0, 0, 0, 0, 0, 0, 0],
      255,
    )
    guest.network.receive(solicit, { checksumStart: -1, checksumOffset: 0, segmentSize: 0, segmentIp: 0 })
    const [frame] = guest.card.take()
    expect([...frame!.subarray(0, 6)]).toEqual([...ALL_NODES_MAC])
    const hex = Buffer.from(frame!).toString('hex')
    expect(hex).toContain('030440c0') // prefix information: /64, on link, autonomous
    expect(hex).toContain('fd6e6f6e726f6f740000000000000000')
    expect(hex).toContain(`190300000000${'0708'}${Buffer.from(Address6.dns).toString('hex')}`)
  })
})

describe('ICMP', () => {
  it.each([
    { to: Address4.gateway, answer: ['icmp 10.0.2.2 > 10.0.2.15 0/0'] },
    { to: Address4.dns, answer: ['icmp 10.0.2.3 > 10.0.2.15 0/0'] },
    // Programs without privilege send no echo requests.
    { to: outside, answer: ['icmp 10.0.2.2 > 10.0.2.15 3/13'] },
    { to: ip('224.0.0.1'), answer: [] },
  ])('echo to $to', ({ to, answer }) => {
    const guest = new Guest()
    expect(guest.send(guest.icmp(to, echo4))).toEqual(answer)
  })

  it('says that there is no such protocol', () => {
    const guest = new Guest()
    const frame = guest.icmp(outside, echo4)
    frame[23] = 47
    // The header's checksum, for the change from 1 to 47.
    const view = new DataView(frame.buffer)
    view.setUint16(24, view.getUint16(24) - 46)
    expect(guest.send(frame)).toEqual(['icmp 10.0.2.2 > 10.0.2.15 3/2'])
  })
})

describe('UDP', () => {
  it('goes out by a socket of the host, and answers come back', async () => {
    const guest = new Guest()
    guest.send(guest.udp(outside, 7, 'ask'))
    await guest.later()
    expect(guest.host.sent).toEqual([{ text: 'ask', host: '192.0.2.1', port: 7 }])
    guest.host.sockets[0]!.handlers.datagram(new TextEncoder().encode('answer'), '192.0.2.1', 7)
    expect(guest.shown()).toEqual(['udp 192.0.2.1:7 > 10.0.2.15:5000 answer'])
    // From whom it was not asked, too: endpoint-independent (RFC 4787).
    guest.host.sockets[0]!.handlers.datagram(new TextEncoder().encode('other'), '192.0.2.2', 9)
    expect(guest.shown()).toEqual(['udp 192.0.2.2:9 > 10.0.2.15:5000 other'])
  })

  it('tells the guest that nobody listens', async () => {
    const guest = new Guest({ loopback: [7] })
    guest.send(guest.udp(Address4.gateway, 7, 'ask'))
    await guest.later()
    expect(guest.host.sent[0]).toMatchObject({ host: '127.0.0.1', port: 7 })
    guest.host.sockets[0]!.handlers.refused()
    expect(guest.shown()).toEqual(['icmp 10.0.2.2 > 10.0.2.15 3/3'])
  })

  it('closes sockets that nothing goes through, and those of too many ports', async () => {
    const guest = new Guest()
    for (let port = 1; port <= 600; port++) guest.send(guest.udp(outside, 7, 'x', port))
    await guest.later()
    expect(guest.host.sockets.filter(({ closed }) => !closed)).toHaveLength(512)
    guest.around.clock.advanceNs(300e9)
    guest.around.clock.runExpired()
    expect(guest.host.sockets.filter(({ closed }) => !closed)).toHaveLength(0)
  })

  it('is forwarded to the guest, whose answers go to whoever asked', async () => {
    const guest = new Guest({ forward: ['udp:127.0.0.1:5353:53'] })
    await guest.network.listen()
    const [socket] = guest.host.sockets
    expect(socket!.at).toEqual({ host: '127.0.0.1', port: 5353 })
    socket!.handlers.datagram(new TextEncoder().encode('ask'), '127.0.0.1', 7777)
    expect(guest.shown()).toEqual(['udp 10.0.2.2:7777 > 10.0.2.15:53 ask'])
    guest.send(guest.udp(Address4.gateway, 7777, 'answer', 53))
    expect(guest.host.sent).toEqual([{ text: 'answer', host: '127.0.0.1', port: 7777 }])
  })
})

describe('TCP', () => {
  it('connects, carries bytes both ways, and half-closes', async () => {
    const guest = new Guest()
    const streams = guest.host.serve('192.0.2.1:80')
    expect(guest.send(guest.tcp(outside, 80, SYN, { seq: 100 }))).toEqual([])
    expect(await guest.later()).toEqual(['tcp 192.0.2.1:80 > 10.0.2.15:6000 SA'])
    const [stream] = streams
    const ours = sequenceOf(guest)
    guest.send(guest.tcp(outside, 80, Flag.ack, { seq: 101, ack: ours + 1, data: 'GET' }))
    expect(stream!.text).toBe('GET')
    stream!.say('page')
    expect(guest.shown()).toEqual(['tcp 192.0.2.1:80 > 10.0.2.15:6000 AP page'])
    guest.send(guest.tcp(outside, 80, Flag.ack | Flag.fin, { seq: 104, ack: ours + 5 }))
    expect([stream!.ended, guest.connections]).toEqual([true, 1])
    stream!.say('more')
    stream!.handlers!.end()
    stream!.handlers!.close()
    expect(guest.shown()).toEqual(['tcp 192.0.2.1:80 > 10.0.2.15:6000 AP more', 'tcp 192.0.2.1:80 > 10.0.2.15:6000 AF'])
    guest.send(guest.tcp(outside, 80, Flag.ack, { seq: 105, ack: ours + 10 }))
    expect(guest.connections).toBe(0)
  })

  it.each([
    { problem: 'refused', answer: 'tcp 192.0.2.1:80 > 10.0.2.15:6000 AR' },
    { problem: 'unreachable', answer: 'icmp 10.0.2.2 > 10.0.2.15 3/1' },
    { problem: 'denied', answer: 'icmp 10.0.2.2 > 10.0.2.15 3/13' },
    { problem: 'timedOut', answer: undefined },
  ] as const)('the host cannot connect: $problem', async ({ problem, answer }) => {
    const guest = new Guest()
    guest.host.services.set('192.0.2.1:80', problem)
    guest.send(guest.tcp(outside, 80, SYN))
    expect(await guest.later()).toEqual(answer === undefined ? [] : [answer])
    expect(guest.connections).toBe(0)
  })

  it('resets what it does not know, but no reset', () => {
    const guest = new Guest()
    expect(guest.send(guest.tcp(outside, 80, Flag.ack, { seq: 5, ack: 9 }))).toEqual([
      'tcp 192.0.2.1:80 > 10.0.2.15:6000 R',
    ])
    expect(guest.send(guest.tcp(outside, 80, Flag.fin))).toEqual(['tcp 192.0.2.1:80 > 10.0.2.15:6000 AR'])
    expect(guest.send(guest.tcp(outside, 80, Flag.rst))).toEqual([])
  })

  it('is forwarded to the guest', async () => {
    const guest = new Guest({ forward: ['2222:22'] })
    await guest.network.listen()
    const { FakeStream } = await import('../testing/fake-host.ts')
    const stream = new FakeStream()
    guest.host.listening.get(2222)!({ stream: stream.stream, host: '127.0.0.1', port: 50000 })
    expect(guest.shown()).toEqual(['tcp 10.0.2.2:50000 > 10.0.2.15:22 S'])
    guest.send(guest.tcp(Address4.gateway, 50000, Flag.rst | Flag.ack, { from: 22, ack: sequenceOf(guest) + 1 }))
    expect([stream.destroyed, guest.connections]).toEqual([true, 0])
  })

  it('a flood of SYNs opens a bounded number of connections', async () => {
    const guest = new Guest()
    for (let from = 1; from < 10_000; from++) guest.send(guest.tcp(outside, 80, SYN, { from }))
    expect(guest.host.connected).toHaveLength(512)
    await guest.later()
    expect(guest.connections).toBe(0)
  })

  it('a slow program of the host fills the window, and no more', async () => {
    const guest = new Guest()
    const streams = guest.host.serve('192.0.2.1:80')
    guest.send(guest.tcp(outside, 80, SYN, { seq: 0 }))
    await guest.later()
    streams[0]!.slow = true
    const data = 'x'.repeat(1000)
    for (let seq = 1; seq < 2_000_000; seq += 1000)
      guest.send(guest.tcp(outside, 80, Flag.ack, { seq, ack: sequenceOf(guest) + 1, data }))
    expect(streams[0]!.length).toBe(256 * 1024)
  })

  it('a guest that takes nothing stops the program of the host', async () => {
    const guest = new Guest()
    const streams = guest.host.serve('192.0.2.1:80')
    guest.send(guest.tcp(outside, 80, SYN, { seq: 0 }))
    await guest.later()
    guest.send(guest.tcp(outside, 80, Flag.ack, { seq: 1, ack: sequenceOf(guest) + 1, window: 0 }))
    let said = 0
    while (!streams[0]!.paused && said < 10e6) {
      streams[0]!.say('x'.repeat(65536))
      said += 65536
    }
    expect(said).toBe(256 * 1024)
  })
})

/** Our first sequence number of the only connection: the fake host's random numbers are none. */
function sequenceOf(guest: Guest): number {
  return guest.initial
}
