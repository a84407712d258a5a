import { NO_WORK } from '@nonroot/contracts'
import ipaddr from 'ipaddr.js'
import { describe, expect, it } from 'vitest'
import { FakeStream, settle } from '../testing/fake-host.ts'
import { Guest, GUEST_MAC, ip } from '../testing/guest.ts'
import { Flag } from '../tcp/facts.ts'
import { Address4, Address6, ALL_NODES_MAC } from './addresses.ts'
import { parseForward } from './forwards.ts'
import { Policy } from './policy.ts'

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
    guest.network.flush()
    const [frame] = guest.card.take()
    expect([...frame!.subarray(0, 6)]).toEqual([...ALL_NODES_MAC])
    const hex = Buffer.from(frame!).toString('hex')
    expect(hex).toContain('030440c0') // prefix information: /64, on link, autonomous
    expect(hex).toContain('fd6e6f6e726f6f740000000000000000')
    expect(hex).toContain(`190300000000${'0708'}${Buffer.from(Address6.dns).toString('hex')}`)
  })
})

describe('DHCP', () => {
  const dhcp = (
    type: number,
    options: readonly number[] = [],
    client: Uint8Array = Address4.unspecified,
  ): Uint8Array => {
    const message = new Uint8Array(300)
    message.set([1, 1, 6, 0, 0xca, 0xfe, 0xba, 0xbe])
    message.set(client, 12)
    message.set(GUEST_MAC, 28)
    message.set([0x63, 0x82, 0x53, 0x63, 53, 1, type, ...options, 255], 236)
    return message
  }
  const ask = (message: Uint8Array) => {
    const guest = new Guest()
    guest.network.receive(guest.udp(Address4.limitedBroadcast, 67, message, 68), NO_WORK)
    guest.network.flush()
    const [answer] = guest.card.take()
    const at = 42 + 240
    return (
      answer && {
        type: answer[at + 2],
        address: [...answer.subarray(58, 62)].join('.'),
        to: [...answer.subarray(30, 34)].join('.'),
      }
    )
  }
  const wants = (address: readonly number[]) => [50, 4, ...address]
  const server = (address: readonly number[]) => [54, 4, ...address]

  it.each([
    { what: 'DISCOVER', message: dhcp(1), answer: { type: 2, address: '10.0.2.15', to: '255.255.255.255' } },
    {
      what: 'DISCOVER, in a hurry (RFC 4039)',
      message: dhcp(1, [80, 0]),
      answer: { type: 5, address: '10.0.2.15', to: '255.255.255.255' },
    },
    {
      what: 'REQUEST',
      message: dhcp(3, wants([10, 0, 2, 15])),
      answer: { type: 5, address: '10.0.2.15', to: '255.255.255.255' },
    },
    {
      what: 'REQUEST to renew',
      message: dhcp(3, [], Address4.guest),
      answer: { type: 5, address: '10.0.2.15', to: '10.0.2.15' },
    },
    {
      what: 'REQUEST for an address of elsewhere',
      message: dhcp(3, wants([192, 168, 0, 7])),
      answer: { type: 6, address: '0.0.0.0', to: '255.255.255.255' },
    },
    {
      what: 'REQUEST to another server',
      message: dhcp(3, [...wants([10, 0, 2, 15]), ...server([10, 0, 2, 9])]),
      answer: undefined,
    },
    { what: 'INFORM', message: dhcp(8, [], ip('10.0.2.20')), answer: { type: 5, address: '0.0.0.0', to: '10.0.2.20' } },
    { what: 'RELEASE', message: dhcp(7), answer: undefined },
    { what: 'what is cut off', message: dhcp(1).subarray(0, 238), answer: undefined },
    { what: 'an option that is longer than the message', message: dhcp(1).fill(255, 239, 300), answer: undefined },
  ])('$what', ({ message, answer }) => {
    expect(ask(message)).toEqual(answer)
  })

  const id = [0, 3, 0, 1, ...GUEST_MAC]
  const clientId = [0, 1, 0, id.length, ...id]
  const association = [0, 3, 0, 12, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0]
  it.each([
    { what: 'SOLICIT', message: [1, 9, 9, 9, ...clientId, ...association], type: 2, address: true },
    {
      what: 'SOLICIT, in a hurry',
      message: [1, 9, 9, 9, ...clientId, ...association, 0, 14, 0, 0],
      type: 7,
      address: true,
    },
    { what: 'REQUEST', message: [3, 9, 9, 9, ...clientId, ...association], type: 7, address: true },
    { what: 'INFORMATION-REQUEST', message: [11, 9, 9, 9], type: 7, address: false },
    { what: 'SOLICIT of nobody', message: [1, 9, 9, 9, ...association], type: undefined, address: false },
    {
      what: 'REQUEST to another server',
      message: [3, 9, 9, 9, ...clientId, 0, 2, 0, 1, 7],
      type: undefined,
      address: false,
    },
    { what: 'what is cut off', message: [1, 9, 9, 9, ...clientId.slice(0, 7)], type: undefined, address: false },
  ])('of IPv6: $what', ({ message, type, address }) => {
    const guest = new Guest()
    const everyServer = Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 2)
    guest.network.receive(guest.udp(everyServer, 547, Uint8Array.from(message), 546), NO_WORK)
    guest.network.flush()
    const [answer] = guest.card.take()
    expect(answer?.[62]).toBe(type)
    expect(
      Buffer.from(answer ?? [])
        .subarray(62)
        .includes(Buffer.from(Address6.guest)),
    ).toBe(address)
  })
})

describe('DNS', () => {
  const query = (name: string, type: number): Uint8Array =>
    Uint8Array.of(
      7,
      7,
      1,
      0,
      0,
      1,
      0,
      0,
      0,
      0,
      0,
      0,
      ...name.split('.').flatMap((label) => [label.length, ...Buffer.from(label)]),
      0,
      0,
      type,
      0,
      1,
    )

  it.each([
    {
      name: 'two.test',
      type: 1,
      code: 0,
      answers: [
        [192, 0, 2, 1],
        [192, 0, 2, 2],
      ],
    },
    { name: 'two.test', type: 28, code: 0, answers: [] },
    { name: 'none.test', type: 1, code: 3, answers: [] },
  ])("asks the host's resolver for addresses: $name, type $type", async ({ name, type, code, answers }) => {
    const guest = new Guest()
    guest.host.names.set('two.test', ['192.0.2.1', '192.0.2.2'])
    guest.network.receive(guest.udp(Address4.dns, 53, query(name, type)), NO_WORK)
    guest.network.flush()
    await settle()
    const answer = guest.card.take()[0]!.subarray(42)
    expect([answer[0], answer[1], answer[2]! & 0x80, answer[3]! & 15, answer[7]]).toEqual([
      7,
      7,
      0x80,
      code,
      answers.length,
    ])
    for (const [index, address] of answers.entries())
      expect([
        ...answer.subarray(query(name, type).length + 16 * index + 12, query(name, type).length + 16 * index + 16),
      ]).toEqual(address)
  })

  it("asks the host's name server for anything else, and takes an answer from nobody else", async () => {
    const guest = new Guest()
    guest.network.receive(guest.udp(Address4.dns, 53, query('a.test', 15)), NO_WORK)
    guest.network.flush()
    await settle()
    const [sent] = guest.host.sent
    expect([sent!.host, sent!.port]).toEqual(['192.0.2.53', 53])
    const answer = Uint8Array.from(Buffer.from(sent!.text, 'latin1'))
    const { handlers } = guest.host.sockets[0]!
    handlers.datagram(answer, '192.0.2.99', 53)
    handlers.datagram(answer, '192.0.2.53', 54)
    handlers.datagram(
      Uint8Array.from(answer, (byte, index) => (index === 13 ? byte ^ 1 : byte)),
      '192.0.2.53',
      53,
    )
    expect(guest.card.take()).toEqual([])
    handlers.datagram(answer, '192.0.2.53', 53)
    expect([...guest.card.take()[0]!.subarray(42, 44)]).toEqual([7, 7])
    // Once.
    handlers.datagram(answer, '192.0.2.53', 53)
    expect(guest.card.take()).toEqual([])
  })
})

describe('policy', () => {
  it.each([
    { to: '192.0.2.1:80', goes: '192.0.2.1:80' },
    { to: '127.0.0.1:80', goes: 'denied' },
    { to: '127.9.9.9:80', goes: 'denied' },
    { to: '0.0.0.0:80', goes: 'denied' },
    { to: '0.1.2.3:80', goes: 'denied' },
    { to: '224.0.0.1:80', goes: 'denied' },
    { to: '255.255.255.255:80', goes: 'denied' },
    { to: '10.0.2.99:80', goes: 'denied' },
    { to: '10.0.2.2:80', goes: 'refused' },
    { to: '10.0.2.2:81', loopback: [81], goes: '127.0.0.1:81' },
    { to: '10.0.2.2:80', loopback: [81], goes: 'refused' },
    { to: '10.0.2.2:80', loopback: 'open' as const, goes: '127.0.0.1:80' },
    { to: '10.0.2.3:53', goes: '192.0.2.53:53' },
    { to: '10.0.2.3:80', goes: 'refused' },
    { to: '192.0.2.1:0', goes: 'denied' },
    { to: '10.0.2.2:0', loopback: 'open' as const, goes: 'denied' },
    // Link-local, but it needs no interface.
    { to: '169.254.1.1:80', goes: '169.254.1.1:80' },
    { to: '::1 80', goes: 'denied' },
    { to: ':: 80', goes: 'denied' },
    { to: 'ff02::1 80', goes: 'denied' },
    { to: '::ffff:0:7f00:1 80', goes: 'denied' },
    { to: 'fd6e:6f6e:726f:6f74::99 80', goes: 'denied' },
    { to: '::ffff:127.0.0.1 80', goes: 'denied' },
    { to: '::127.0.0.1 80', goes: 'denied' },
    { to: 'fe80::1 80', goes: 'denied' },
    { to: 'fd6e:6f6e:726f:6f74::2 80', loopback: [80], goes: '::1:80' },
    { to: '2001:db8::1 80', goes: '2001:db8::1:80' },
    { to: '192.0.2.1:80', deny: ['192.0.2.0/24'], goes: 'denied' },
    { to: '192.0.3.1:80', deny: ['192.0.2.0/24'], goes: '192.0.3.1:80' },
    { to: '192.0.2.1:80', deny: ['192.0.2.1:443'], goes: '192.0.2.1:80' },
    { to: '192.0.2.1:399', deny: ['192.0.2.1:400-500'], goes: '192.0.2.1:399' },
    { to: '192.0.2.1:400', deny: ['192.0.2.1:400-500'], goes: 'denied' },
    { to: '192.0.2.1:500', deny: ['192.0.2.1:400-500'], goes: 'denied' },
    { to: '192.0.2.1:501', deny: ['192.0.2.1:400-500'], goes: '192.0.2.1:501' },
    { to: '192.0.2.1:80', allow: ['192.0.2.0/24:80'], goes: '192.0.2.1:80' },
    { to: '192.0.2.1:81', allow: ['192.0.2.0/24:80'], goes: 'denied' },
    { to: '192.0.2.1:80', allow: ['192.0.2.0/24'], deny: ['192.0.2.1'], goes: 'denied' },
    { to: '2001:db8::1 80', allow: ['[2001:db8::]/32:80'], goes: '2001:db8::1:80' },
    { to: '2001:db9::1 80', allow: ['2001:db8::/32'], goes: 'denied' },
  ])('$to leads to $goes', ({ to, goes, ...request }) => {
    const [, host, port] = /^(.*)[ :](\d+)$/.exec(to)!
    const verdict = new Policy(request, () => '192.0.2.53').decide(
      Uint8Array.from(ipaddr.parse(host!).toByteArray()),
      Number(port),
    )
    expect('to' in verdict ? `${verdict.to.host}:${verdict.to.port}` : verdict.refused).toBe(goes)
  })

  it.each(['', '300.0.0.1', '192.0.2.0/33', '[2001:db8::]/129', '192.0.2.1:70000', '192.0.2.1:1-65536', '192.0.2.1:9-1', 'example.org', '[::1'])(
    'refuses the rule "%s"',
    (rule) => {
      expect(() => new Policy({ deny: [rule] }, () => undefined)).toThrow('is no address, network or port')
    },
  )

  it.each(['80', ':80:80', '1:2:3:4', '70000:80', '80:0', 'tcp:80'])('refuses to forward "%s"', (text) => {
    expect(() => parseForward(text)).toThrow('forwards no port')
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

  const open = (guest: Guest): number[] => guest.host.sockets.flatMap(({ closed }, index) => (closed ? [] : [index]))
  const wait = (guest: Guest, seconds: number): void => {
    guest.around.clock.advanceNs(seconds * 1e9)
    guest.around.clock.runExpired()
  }

  it('keeps a socket as long as something goes through it, in either direction', async () => {
    const guest = new Guest()
    guest.send(guest.udp(outside, 7, 'ask'))
    await guest.later()
    const { handlers } = guest.host.sockets[0]!
    for (let count = 0; count < 3; count++) {
      wait(guest, 100)
      handlers.datagram(new TextEncoder().encode('answer'), '192.0.2.1', 7)
    }
    wait(guest, 110)
    expect([open(guest), guest.shown().length]).toEqual([[0], 3])
    wait(guest, 100)
    expect(open(guest)).toEqual([])
    handlers.datagram(new TextEncoder().encode('late'), '192.0.2.1', 7)
    handlers.refused()
    expect(guest.shown()).toEqual([])
  })

  it('closes the socket that was not used for longest where there are too many', async () => {
    const guest = new Guest()
    for (let port = 1; port <= 512; port++) guest.send(guest.udp(outside, 7, 'x', port))
    await guest.later()
    guest.send(guest.udp(outside, 7, 'again', 1))
    guest.send(guest.udp(outside, 7, 'x', 1000))
    await guest.later()
    expect(guest.host.sockets.flatMap(({ closed }, index) => (closed ? [index] : []))).toEqual([1])
  })

  it('what is sent before there is a socket waits as it was, and no more than 16 of it', async () => {
    const guest = new Guest()
    for (let count = 0; count < 20; count++) {
      const datagram = guest.udp(outside, 7, String(count))
      guest.send(datagram)
      datagram.fill(0)
    }
    await guest.later()
    expect(guest.host.sent.map(({ text }) => text)).toEqual(Array.from({ length: 16 }, (_, count) => String(count)))
  })

  it('a socket that comes after the end is closed', async () => {
    const guest = new Guest()
    guest.send(guest.udp(outside, 7, 'ask'))
    await guest.network.close()
    await guest.later()
    expect([guest.host.sockets.length, open(guest), guest.host.sent]).toEqual([1, [], []])
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
    { late: 0, sentAgain: true },
    { late: 20e6, sentAgain: true },
    // The VM stood still: the guest first gets the time to answer what it already has.
    { late: 20e6 + 1, sentAgain: false },
  ])('a time-out noticed $late ns late sends again at once: $sentAgain', async ({ late, sentAgain }) => {
    const guest = new Guest()
    const { clock } = guest.around
    const streams = guest.host.serve('192.0.2.1:80')
    guest.send(guest.tcp(outside, 80, SYN, { seq: 100 }))
    await guest.later()
    guest.send(guest.tcp(outside, 80, Flag.ack, { seq: 101, ack: sequenceOf(guest) + 1 }))
    streams[0]!.say('page')
    const page = ['tcp 192.0.2.1:80 > 10.0.2.15:6000 AP page']
    expect(guest.shown()).toEqual(page)
    clock.advanceInstructions(clock.nextDeadline() - clock.nowNs() + late)
    clock.runExpired()
    expect(guest.shown()).toEqual(sentAgain ? page : [])
    if (sentAgain) return
    clock.advanceNs(20e6)
    clock.runExpired()
    expect(guest.shown()).toEqual(page)
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
    const stream = new FakeStream()
    guest.host.listening.get(2222)!({ stream: stream.stream, host: '127.0.0.1', port: 50000 })
    expect(guest.shown()).toEqual(['tcp 10.0.2.2:50000 > 10.0.2.15:22 S'])
    guest.send(guest.tcp(Address4.gateway, 50000, Flag.rst | Flag.ack, { from: 22, ack: sequenceOf(guest) + 1 }))
    expect([stream.destroyed, guest.connections]).toEqual([true, 0])
  })

  it('1,000 connections at a time carry bytes both ways', async () => {
    const guest = new Guest()
    const streams = guest.host.serve('192.0.2.1:80')
    const sequences = new Map<number, number>()
    for (let from = 10_000; from < 11_000; from++) {
      guest.network.receive(guest.tcp(outside, 80, SYN, { from, seq: from }), NO_WORK)
      if (from % 100 === 99) await settle()
      for (const frame of guest.card.take()) {
        const view = new DataView(frame.buffer)
        sequences.set(view.getUint16(36), view.getUint32(38))
      }
    }
    await settle()
    for (const frame of guest.card.take())
      sequences.set(new DataView(frame.buffer).getUint16(36), new DataView(frame.buffer).getUint32(38))
    expect([sequences.size, streams.length, guest.connections]).toEqual([1000, 1000, 1000])
    for (const [from, sequence] of sequences)
      guest.send(guest.tcp(outside, 80, Flag.ack, { from, seq: from + 1, ack: sequence + 1, data: `from ${from}` }))
    expect(new Set(streams.map(({ text }) => text)).size).toBe(1000)
    for (const stream of streams) stream.say(stream.text.replace('from', 'to'))
    const answers = guest.shown()
    expect(answers.filter((shown) => /:(\d+) AP to \1$/.test(shown))).toHaveLength(1000)
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
