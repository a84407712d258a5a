import { describe, expect, it } from 'vitest'
import { ScriptedPeer, segments } from '../testing/scripted-peer.ts'

/** Ten segments are under way: all that the initial window allows (RFC 6928). */
function started(sack = true): ScriptedPeer {
  const peer = new ScriptedPeer().connect({ sackPermitted: sack })
  expect(peer.write(3000)).toEqual(segments(1, 1001))
  return peer
}
const { cwnd, ssthresh } = {
  cwnd: (peer: ScriptedPeer) => peer.connection.sender.congestion.window,
  ssthresh: (peer: ScriptedPeer) => peer.connection.sender.congestion.threshold,
}

describe('RFC 5681: congestion control', () => {
  it('slow start: one more segment for each that is acknowledged', () => {
    const peer = started()
    expect(peer.send('A', { seq: 1, ack: 201 })).toEqual(segments(1001, 1401))
  })

  it('does not grow a window that is not used', () => {
    const peer = new ScriptedPeer().connect()
    const before = cwnd(peer)
    for (let at = 1; at < 50; at++) {
      peer.write('x')
      peer.send('A', { seq: 1, ack: at + 1 })
    }
    expect(cwnd(peer)).toBe(before)
  })

  it('congestion avoidance: one segment for each window that is acknowledged', () => {
    const peer = started()
    peer.connection.sender.congestion.threshold = 500
    peer.send('A', { seq: 1, ack: 501 })
    expect(cwnd(peer)).toBe(1000)
    peer.send('A', { seq: 1, ack: 1001 })
    expect(cwnd(peer)).toBe(1100)
  })
})

describe('RFC 6298: retransmission after silence', () => {
  it('sends the first segment again, alone, then twice as late', () => {
    const peer = started()
    // "RTO <- 1 second" until something was measured.
    expect(peer.wait(990)).toEqual([])
    expect(peer.wait(20)).toEqual(segments(1, 101))
    expect([cwnd(peer), ssthresh(peer)]).toEqual([100, 500])
    expect(peer.wait(1980)).toEqual([])
    expect(peer.wait(20)).toEqual(segments(1, 101))
    // The threshold is halved once, not with each time-out.
    expect(ssthresh(peer)).toBe(500)
  })

  it('goes on from there in slow start', () => {
    const peer = started()
    peer.wait(1001)
    expect(peer.send('A', { seq: 1, ack: 101 })).toEqual(segments(101, 301))
    // What came through after all need not go again.
    expect(peer.send('A', { seq: 1, ack: 1001 })).toEqual(segments(1001, 2101))
  })

  it('measures round trips, but not of what went twice (Karn)', () => {
    const peer = started()
    peer.now += 40e6
    peer.send('A', { seq: 1, ack: 1001 })
    const { roundTrip } = peer.connection.sender
    expect(roundTrip.smoothed).toBe(40e6)
    peer.wait(1100)
    peer.now += 7000e6
    peer.send('A', { seq: 1, ack: 1101 })
    expect(roundTrip.smoothed).toBe(40e6)
  })

  it('gives up after two minutes of silence and more', () => {
    const peer = started()
    peer.wait(100_000)
    expect(peer.heard).toEqual([])
    peer.wait(500_000)
    expect(peer.heard).toEqual(['closed timedOut'])
  })
})

describe('RFC 6675: loss recovery with SACK', () => {
  it('enters it after three acknowledgements that tell of something new', () => {
    const peer = started()
    expect(peer.send('A', { seq: 1, ack: 1, sack: [[101, 201]] })).toEqual([])
    expect(peer.send('A', { seq: 1, ack: 1, sack: [[101, 301]] })).toEqual([])
    // (4.3) "Retransmit the first data segment presumed dropped"; (4.2) ssthresh = cwnd = FlightSize / 2
    expect(peer.send('A', { seq: 1, ack: 1, sack: [[101, 401]] })).toEqual(segments(1, 101))
    expect([cwnd(peer), ssthresh(peer)]).toEqual([500, 500])
  })

  it('enters it at once where enough was received beyond the hole (IsLost)', () => {
    const peer = started()
    expect(peer.send('A', { seq: 1, ack: 1, sack: [[101, 401]] })[0]).toBe('A seq 1 ack 1 100 bytes')
  })

  it('does not count acknowledgements that tell nothing new', () => {
    const peer = started()
    for (let time = 0; time < 9; time++) expect(peer.send('A', { seq: 1, ack: 1, sack: [[101, 201]] })).toEqual([])
  })

  it('sends lost holes first, as "cwnd - pipe >= 1 SMSS" allows, and then new data', () => {
    const peer = started()
    // Segments 1 and 3 are lost, the others arrive.
    const sack = (...blocks: [number, number][]) => peer.send('A', { seq: 1, ack: 1, sack: blocks })
    expect(sack([101, 201])).toEqual([])
    expect(sack([101, 201], [301, 401])).toEqual([])
    expect(sack([101, 201], [301, 501])).toEqual(segments(1, 101))
    // pipe: 5 segments beyond what is SACKed and one retransmitted; the second hole is lost once there are three beyond it.
    expect(sack([101, 201], [301, 701])).toEqual(segments(201, 301))
    expect(sack([101, 201], [301, 1001])).toEqual(segments(1001, 1301))
    // Over: all that was under way when it began is acknowledged.
    peer.send('A', { seq: 1, ack: 1301 })
    expect([peer.connection.sender.recovering, cwnd(peer)]).toEqual([false, 500])
  })

  /** Ten segments are under way, and there is no more data: rules 3 and 4 of NextSeg() are left. */
  const finished = () => {
    const peer = new ScriptedPeer().connect({ sackPermitted: true })
    peer.write(1000)
    const sack = (...blocks: [number, number][]) => peer.send('A', { seq: 1, ack: 1, sack: blocks })
    expect(sack([101, 401])).toEqual(segments(1, 101))
    return { peer, sack }
  }

  it('NextSeg() (3), (4): without new data a hole that may not be lost goes again, then the end of what is under way, once', () => {
    const { sack } = finished()
    expect(sack([101, 701], [801, 901])).toEqual([...segments(701, 801), 'AP seq 901 ack 1 100 bytes'])
    expect(sack([101, 701], [801, 901])).toEqual([])
  })

  it('NextSeg() (4): the rescue is one for each recovery', () => {
    const { peer, sack } = finished()
    expect(sack([101, 801])).toEqual(['AP seq 901 ack 1 100 bytes'])
    expect([sack([101, 901]), peer.send('A', { seq: 1, ack: 901 })]).toEqual([[], []])
  })

  it('a time-out forgets what the peer said it has (RFC 2018: it may have dropped it)', () => {
    const { peer, sack } = finished()
    sack([101, 901])
    peer.wait(1100)
    expect([peer.connection.sender.sacked.count, peer.connection.sender.recovering]).toEqual([0, false])
    expect(peer.send('A', { seq: 1, ack: 101 })).toEqual(segments(101, 301))
  })

  it('sends nothing again that the peer said it has', () => {
    const peer = started()
    peer.send('A', { seq: 1, ack: 1, sack: [[101, 901]] })
    const sent: string[] = []
    for (let time = 0; time < 20; time++) sent.push(...peer.send('A', { seq: 1, ack: 1, sack: [[101, 1001]] }))
    expect(sent.filter((segment) => /seq [1-9]01 /.test(segment) && !segment.includes('seq 1001'))).toEqual([])
  })

  it('ignores blocks of what was never sent, and those behind (D-SACK)', () => {
    const peer = started()
    peer.send('A', { seq: 1, ack: 201 })
    for (const block of [
      [1, 101],
      [5000, 5100],
      [301, 301],
      [401, 301],
      [901, 9000],
    ] as [number, number][])
      peer.send('A', { seq: 1, ack: 201, sack: [block] })
    expect(peer.connection.sender.sacked.count).toBe(0)
  })

  it('does not begin again before what a time-out sends again is acknowledged', () => {
    const peer = started()
    peer.wait(1001)
    expect(peer.send('A', { seq: 1, ack: 1, sack: [[101, 801]] })).toEqual([])
  })
})

describe('RFC 6582: loss recovery without SACK', () => {
  it('the third duplicate sends the first segment again, each further one something new', () => {
    const peer = started(false)
    const duplicate = () => peer.send('A', { seq: 1, ack: 1 })
    expect([duplicate(), duplicate(), duplicate()]).toEqual([[], [], segments(1, 101)])
    // ssthresh 500, and 3 for those that left: two more and there is room.
    expect([duplicate(), duplicate(), duplicate()]).toEqual([[], [], segments(1001, 1101)])
    // A partial acknowledgement tells of the next hole.
    expect(peer.send('A', { seq: 1, ack: 301 })[0]).toBe('A seq 301 ack 1 100 bytes')
    peer.send('A', { seq: 1, ack: 1101 })
    expect([peer.connection.sender.recovering, cwnd(peer)]).toEqual([false, 500])
  })

  it('what carries data or another window is no duplicate', () => {
    const peer = started(false)
    for (let time = 0; time < 6; time++) peer.send('A', { seq: 1, ack: 1, window: 10_000 + time })
    for (let time = 0; time < 6; time++) peer.send('A', { seq: 1 + time, ack: 1, text: 'x' })
    expect(peer.connection.sender.recovering).toBe(false)
  })
})
