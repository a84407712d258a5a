import { describe, expect, it } from 'vitest'
import { ScriptedPeer, segments } from '../testing/scripted-peer.ts'
import { FIN_WAIT, KEEP_ALIVE, MS, TIME_WAIT } from './facts.ts'

const x = (count: number): string => 'x'.repeat(count)

describe('RFC 9293: establishing a connection', () => {
  it('answers a SYN, and is established by its acknowledgement', () => {
    const peer = new ScriptedPeer()
    peer.connection.accept(peer.segment({ flags: 'S' }))
    expect(peer.take()).toEqual(['SA seq 0 ack 1'])
    expect(peer.send('A', { seq: 1, ack: 1 })).toEqual([])
    expect([peer.connection.state, peer.heard]).toEqual(['established', ['established']])
  })

  it('asks, and acknowledges the answer', () => {
    const peer = new ScriptedPeer()
    peer.connection.open()
    expect(peer.take()).toEqual(['S seq 0'])
    expect(peer.send('SA', { ack: 1 })).toEqual(['A seq 1 ack 1'])
    expect(peer.connection.state).toBe('established')
  })

  it('"simultaneous connection synchronization"', () => {
    const peer = new ScriptedPeer()
    peer.connection.open()
    peer.take()
    expect(peer.send('S')).toEqual(['SA seq 0 ack 1'])
    peer.send('A', { seq: 1, ack: 1 })
    expect(peer.connection.state).toBe('established')
  })

  it.each([
    {
      what: 'an acknowledgement of what was not sent is answered by a reset',
      flags: 'A',
      ack: 2,
      answer: ['R seq 2'],
      state: 'synSent',
    },
    { what: 'and a reset with one is ignored', flags: 'RA', ack: 2, answer: [], state: 'synSent' },
    { what: 'a reset that acknowledges the SYN ends it', flags: 'RA', ack: 1, answer: [], state: 'closed' },
    { what: 'a reset without acknowledgement is ignored', flags: 'R', ack: undefined, answer: [], state: 'synSent' },
    { what: 'an acknowledgement alone is ignored', flags: 'A', ack: 1, answer: [], state: 'synSent' },
  ])('in SYN-SENT $what', ({ flags, ack, answer, state }) => {
    const peer = new ScriptedPeer()
    peer.connection.open()
    peer.take()
    expect(peer.send(flags, ack === undefined ? {} : { ack })).toEqual(answer)
    expect(peer.connection.state).toBe(state)
  })

  it('in SYN-RECEIVED resets what acknowledges something else', () => {
    const peer = new ScriptedPeer()
    peer.connection.accept(peer.segment({ flags: 'S' }))
    peer.take()
    expect(peer.send('A', { seq: 1, ack: 7 })).toEqual(['R seq 7'])
    expect(peer.connection.state).toBe('synReceived')
  })

  it('sends a SYN again, ever more slowly, and answers one that comes again', () => {
    const peer = new ScriptedPeer()
    peer.connection.accept(peer.segment({ flags: 'S' }))
    peer.take()
    expect([peer.wait(999), peer.wait(2), peer.wait(1990), peer.wait(10)]).toEqual([
      [],
      ['SA seq 0 ack 1'],
      [],
      ['SA seq 0 ack 1'],
    ])
    expect(peer.send('S')).toEqual(['SA seq 0 ack 1'])
    peer.wait(600_000)
    expect(peer.heard).toEqual(['closed timedOut'])
  })

  it.each([
    { syn: { scale: 7 }, window: 20 << 7 },
    { syn: { scale: -1 }, window: 20 },
    // RFC 7323: "MUST NOT exceed 14": what says more counts as 14.
    { syn: { scale: 14 }, window: 20 << 14 },
  ])('scales windows if both do: $syn', ({ syn, window }) => {
    const peer = new ScriptedPeer()
    peer.connect(syn)
    peer.send('A', { seq: 1, ack: 1, window: 20 })
    expect(peer.connection.sender.window).toBe(window)
    expect(peer.connection.scaled).toBe(syn.scale >= 0)
  })
})

describe('RFC 9293: segments that arrive', () => {
  it.each([
    { what: 'inside the window', seq: 1, text: 'abc', heard: ['data abc'] },
    { what: 'before it', seq: -2, text: 'abc', heard: [], answer: ['A seq 1 ack 1'] },
    { what: 'partly before it', seq: -1, text: 'abc', heard: ['data c'], answer: ['A seq 1 ack 2'] },
    { what: 'behind it', seq: 1001, text: 'abc', heard: [], answer: ['A seq 1 ack 1'] },
    { what: 'partly behind it', seq: 1, text: x(1002), heard: ['data 1000'], answer: ['A seq 1 ack 1001'] },
    { what: 'nothing, behind it', seq: 1001, text: '', heard: [], answer: ['A seq 1 ack 1'] },
  ])('"Segment Acceptability Test": $what', ({ seq, text, heard, answer = [] }) => {
    const peer = new ScriptedPeer().connect()
    expect(peer.send('A', { seq, ack: 1, text })).toEqual(answer)
    expect(peer.heard).toEqual(heard)
  })

  it.each([
    { what: 'exactly where expected', seq: 1, state: 'closed', answer: [] },
    {
      what: 'elsewhere in the window is asked about (RFC 5961)',
      seq: 2,
      state: 'established',
      answer: ['A seq 1 ack 1'],
    },
    { what: 'before the window is ignored', seq: 0, state: 'established', answer: [] },
    { what: 'behind the window is ignored', seq: 1001, state: 'established', answer: [] },
  ])('a reset $what', ({ seq, state, answer }) => {
    const peer = new ScriptedPeer().connect()
    expect(peer.send('R', { seq })).toEqual(answer)
    expect(peer.connection.state).toBe(state)
  })

  it('a SYN in the window is asked about (RFC 5961)', () => {
    const peer = new ScriptedPeer().connect()
    expect(peer.send('S', { seq: 5 })).toEqual(['A seq 1 ack 1'])
    expect(peer.connection.state).toBe('established')
  })

  it('"if the ACK bit is off, drop the segment"', () => {
    const peer = new ScriptedPeer().connect()
    expect(peer.send('P', { seq: 1, text: 'abc' })).toEqual([])
    expect(peer.heard).toEqual([])
  })

  it('"If the ACK acks something not yet sent [...] then send an ACK, drop the segment"', () => {
    const peer = new ScriptedPeer().connect()
    expect(peer.send('A', { seq: 1, ack: 2, text: 'abc' })).toEqual(['A seq 1 ack 1'])
    expect(peer.heard).toEqual([])
  })

  it('puts in order what comes out of order, once', () => {
    const peer = new ScriptedPeer().connect()
    peer.send('A', { seq: 4, ack: 1, text: 'def' })
    peer.send('A', { seq: 10, ack: 1, text: 'jk' })
    peer.send('A', { seq: 5, ack: 1, text: 'efghi' })
    expect(peer.heard).toEqual([])
    peer.send('A', { seq: 2, ack: 1, text: 'bcd' })
    expect(peer.send('A', { seq: 1, ack: 1, text: 'ab' })).toEqual(['A seq 1 ack 12'])
    expect(peer.heard).toEqual(['data ab', 'data cdefghijk'])
  })

  it('tells of what is beyond a hole, the latest first (RFC 2018)', () => {
    const peer = new ScriptedPeer().connect()
    const blocks = [3, 7, 11, 7].map((seq) => {
      expect(peer.send('A', { seq, ack: 1, text: 'xx' })).toEqual(['A seq 1 ack 1'])
      return peer.sack
    })
    expect(blocks).toEqual([
      [[3, 5]],
      [
        [7, 9],
        [3, 5],
      ],
      [
        [11, 13],
        [3, 5],
        [7, 9],
      ],
      [
        [7, 9],
        [3, 5],
        [11, 13],
      ],
    ])
  })

  it('keeps a bounded number of ranges of what comes out of order', () => {
    const peer = new ScriptedPeer().connect()
    for (let seq = 3; seq < 999; seq += 2) peer.send('A', { seq, ack: 1, text: 'x' })
    expect(peer.connection.receiver.ranges.count).toBe(64)
    for (let seq = 1; seq < 200; seq++) peer.send('A', { seq, ack: 1, text: 'x' })
    expect(peer.heard.join('').replaceAll('data ', '')).toBe(x(199))
  })

  it('acknowledges every second full segment at once, and less after a while', () => {
    const peer = new ScriptedPeer().connect()
    expect(peer.send('A', { seq: 1, ack: 1, text: x(100) })).toEqual([])
    expect(peer.send('A', { seq: 101, ack: 1, text: x(100) })).toEqual(['A seq 1 ack 201'])
    expect(peer.send('A', { seq: 201, ack: 1, text: 'x' })).toEqual([])
    expect(peer.wait(3)).toEqual(['A seq 1 ack 202'])
  })

  it('lets data carry an acknowledgement', () => {
    const peer = new ScriptedPeer().connect()
    peer.send('A', { seq: 1, ack: 1, text: 'ask' })
    expect(peer.write('answer')).toEqual(['AP seq 1 ack 4 "answer"'])
    expect(peer.wait(100)).toEqual([])
  })
})

describe('RFC 9293: windows', () => {
  it('closes as the user takes nothing, never shrinks, and opens again', () => {
    const peer = new ScriptedPeer({ window: 1000 }).connect()
    peer.takes = false
    for (let seq = 1; seq < 1001; seq += 100) peer.send('A', { seq, ack: 1, text: x(100) })
    expect([peer.wait(10), peer.window]).toEqual([[], 0])
    // "special allowance should be made to accept valid ACKs"
    peer.write('hi')
    expect(peer.send('A', { seq: 1001, ack: 3, text: 'x' })).toEqual(['A seq 3 ack 1001'])
    expect(peer.connection.queued).toBe(0)
    // Silly windows are not offered.
    peer.connection.taken(50)
    expect(peer.take()).toEqual([])
    peer.connection.taken(450)
    // In units of 8, rounded up.
    expect([peer.take(), peer.window]).toEqual([['A seq 3 ack 1001'], 63])
  })

  it('sends no more than the peer has room for, and goes on as it has', () => {
    const peer = new ScriptedPeer().connect({ window: 250 })
    expect(peer.write(1000)).toEqual(segments(1, 201))
    expect(peer.send('A', { seq: 1, ack: 201, window: 250 })).toEqual(segments(201, 401))
    expect(peer.send('A', { seq: 1, ack: 401, window: 0 })).toEqual([])
  })

  it('takes no window from an older segment', () => {
    const peer = new ScriptedPeer().connect({ window: 250 })
    peer.send('A', { seq: 1, ack: 1, text: 'abc' })
    peer.send('A', { seq: 4, ack: 1, window: 300 })
    peer.send('A', { seq: 1, ack: 1, window: 9000 })
    expect(peer.connection.sender.window).toBe(300)
  })

  it('"Probing zero windows": for as long as the peer answers', () => {
    const peer = new ScriptedPeer().connect({ window: 100 })
    peer.write(300)
    expect(peer.send('A', { seq: 1, ack: 101, window: 0 })).toEqual([])
    for (let round = 0; round < 40; round++) {
      expect(peer.wait(60_000).every((probe) => probe === 'A seq 100 ack 1')).toBe(true)
      peer.send('A', { seq: 1, ack: 101, window: 0 })
    }
    expect(peer.send('A', { seq: 1, ack: 101, window: 1000 })).toEqual([
      'A seq 101 ack 1 100 bytes',
      'AP seq 201 ack 1 100 bytes',
    ])
    expect(peer.heard).toEqual([])
  })

  it('sends again at once, as the window opens, what found it shut', () => {
    const peer = new ScriptedPeer().connect({ window: 1000 })
    peer.write(300)
    // It said that it had room, and had none.
    peer.send('A', { seq: 1, ack: 1, window: 0 })
    for (let round = 0; round < 20; round++) {
      expect(peer.wait(60_000).every((segment) => segment === segments(1, 101)[0])).toBe(true)
      peer.send('A', { seq: 1, ack: 1, window: 0 })
    }
    expect(peer.send('A', { seq: 1, ack: 1, window: 1000 })).toEqual(segments(1, 101))
    expect(peer.send('A', { seq: 1, ack: 101, window: 1000 })).toEqual([
      'A seq 101 ack 1 100 bytes',
      'AP seq 201 ack 1 100 bytes',
    ])
    expect(peer.heard).toEqual([])
  })

  it('gives up a peer that answers no probe', () => {
    const peer = new ScriptedPeer().connect({ window: 100 })
    peer.write(300)
    peer.send('A', { seq: 1, ack: 101, window: 0 })
    peer.wait(2 * (KEEP_ALIVE / MS))
    expect(peer.heard).toEqual(['closed timedOut'])
  })

  it("keeps small segments back while the window is small (the sender's SWS avoidance)", () => {
    const peer = new ScriptedPeer().connect({ window: 250 })
    peer.write(250)
    expect(peer.write(500)).toEqual([])
    expect(peer.send('A', { seq: 1, ack: 101, window: 160 })).toEqual([])
  })

  it('waits where the cable has no room', () => {
    const peer = new ScriptedPeer().connect()
    peer.room = 2
    expect(peer.write(500)).toEqual(segments(1, 201))
    peer.room = 10
    peer.connection.resume()
    expect(peer.take()).toEqual([...segments(201, 401), 'AP seq 401 ack 1 100 bytes'])
  })
})

describe('RFC 9293: closing', () => {
  it('the peer first', () => {
    const peer = new ScriptedPeer().connect()
    expect(peer.send('FA', { seq: 1, ack: 1 })).toEqual(['A seq 1 ack 2'])
    expect([peer.connection.state, peer.heard]).toEqual(['closeWait', ['end']])
    // Half closed: the other half carries on.
    expect(peer.write('more')).toEqual(['AP seq 1 ack 2 "more"'])
    peer.connection.end()
    expect([peer.take(), peer.connection.state]).toEqual([['AF seq 5 ack 2'], 'lastAck'])
    peer.send('A', { seq: 2, ack: 6 })
    expect(peer.heard).toEqual(['end', 'closed done'])
  })

  it('we first', () => {
    const peer = new ScriptedPeer().connect()
    peer.connection.end()
    expect([peer.take(), peer.connection.state]).toEqual([['AF seq 1 ack 1'], 'finWait1'])
    peer.send('A', { seq: 1, ack: 2 })
    expect(peer.connection.state).toBe('finWait2')
    peer.send('A', { seq: 1, ack: 2, text: 'late' })
    expect(peer.send('FA', { seq: 5, ack: 2 })).toEqual(['A seq 2 ack 6'])
    expect([peer.connection.state, peer.heard]).toEqual(['timeWait', ['data late', 'end']])
    // Its FIN again: acknowledged again.
    expect(peer.send('FA', { seq: 5, ack: 2 })).toEqual(['A seq 2 ack 6'])
    peer.wait(TIME_WAIT / MS)
    expect(peer.heard.at(-1)).toBe('closed done')
  })

  it('both at once', () => {
    const peer = new ScriptedPeer().connect()
    peer.connection.end()
    peer.take()
    expect(peer.send('FA', { seq: 1, ack: 1 })).toEqual(['A seq 2 ack 2'])
    expect(peer.connection.state).toBe('closing')
    peer.send('A', { seq: 2, ack: 2 })
    expect(peer.connection.state).toBe('timeWait')
  })

  it('a FIN waits for what comes before it', () => {
    const peer = new ScriptedPeer().connect()
    peer.send('FA', { seq: 4, ack: 1 })
    expect(peer.heard).toEqual([])
    peer.send('FA', { seq: 1, ack: 1, text: 'abc' })
    expect(peer.heard).toEqual(['data abc', 'end'])
  })

  it('the FIN follows the last data, and is sent again', () => {
    const peer = new ScriptedPeer().connect()
    const data = peer.write('bye')
    peer.connection.end()
    expect([...data, ...peer.take()]).toEqual(['AP seq 1 ack 1 "bye"', 'AF seq 4 ack 1'])
    peer.send('A', { seq: 1, ack: 4 })
    expect(peer.wait(1000)).toContain('AF seq 4 ack 1')
  })

  it('an abort tells the peer', () => {
    const peer = new ScriptedPeer().connect()
    peer.connection.abort()
    expect([peer.take(), peer.heard]).toEqual([['AR seq 1 ack 1'], ['closed done']])
  })

  it('a peer that never closes its half is asked whether it is there', () => {
    const peer = new ScriptedPeer().connect()
    peer.connection.end()
    peer.send('A', { seq: 1, ack: 2 })
    expect(peer.wait(FIN_WAIT / MS)).toEqual(['A seq 1 ack 1'])
    peer.wait((3 * FIN_WAIT) / MS)
    expect(peer.heard).toEqual(['closed timedOut'])
  })
})
