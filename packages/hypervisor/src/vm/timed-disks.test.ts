import { setTimeout as wait } from 'node:timers/promises'
import type { BlockBackend, HostBackends } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { DeterministicClock } from '../time/index.ts'
import { TimedDisks } from './timed-disks.ts'

/** A disk of ones whose requests take host time: the first longest. */
function slowDisk(log: string[]): BlockBackend {
  let delay = 30
  const done = async (what: string): Promise<void> => {
    log.push(`${what} begins`)
    await wait((delay -= 10))
    log.push(`${what} ends`)
  }
  return {
    size: 1 << 20,
    sectorSize: 512,
    readOnly: false,
    async read(offset, into) {
      await done(`read ${offset}`)
      if (offset === 512) throw new Error('bad sector')
      into.fill(1)
    },
    write: (offset) => done(`write ${offset}`),
    readNow: () => true,
    flush: () => done('flush'),
    close: () => done('close'),
  }
}

function bench() {
  const clock = new DeterministicClock()
  const log: string[] = []
  const held: Promise<unknown>[] = []
  const disks = new TimedDisks(clock, (until) => void held.push(until))
  const disk = disks.disk(slowDisk(log))
  const pass = (ns: number): number => {
    clock.advanceInstructions(ns)
    return clock.runExpired()
  }
  return { clock, log, held, disks, disk, pass }
}

describe('a disk under a deterministic clock', () => {
  it('does at a guest time what it is asked, and holds the guest meanwhile', async () => {
    const { log, held, disk, pass } = bench()
    const bytes = new Uint8Array(4096)
    const read = disk.read(0, bytes)
    expect(pass(54_095)).toBe(0)
    await wait(1)
    expect([log, held, bytes[0]]).toEqual([[], [], 0])
    expect(pass(1)).toBe(1)
    expect(held.length).toBe(1)
    await held[0]
    expect([log, bytes[4095]]).toEqual([['read 0 begins', 'read 0 ends'], 1])
    await read
  })

  it('does one thing after the other: by guest time, then as asked', async () => {
    const { log, held, disk, pass } = bench()
    const all = [disk.read(4096, new Uint8Array(4096)), disk.flush(), disk.write(0, new Uint8Array(4096))]
    expect(pass(60_000)).toBe(3)
    await Promise.all([...held, ...all])
    expect(log.filter((line) => line.endsWith('ends'))).toEqual(['flush ends', 'read 4096 ends', 'write 0 ends'])
    expect(log[2]).toBe('read 4096 begins')
  })

  it('knows nothing of what the host has in its page cache', () => {
    const { disk } = bench()
    expect([disk.readNow, disk.writeNow, disk.readVector, disk.discard]).toEqual([
      undefined,
      undefined,
      undefined,
      undefined,
    ])
    expect([disk.size, disk.sectorSize, disk.readOnly]).toEqual([1 << 20, 512, false])
  })

  it('does all that the disk can, with what it was asked for', async () => {
    const calls: unknown[][] = []
    const record =
      (name: string) =>
      async (...args: unknown[]) =>
        void calls.push([name, ...args])
    const off = () => {}
    const listener = () => {}
    const { disks, held, pass } = bench()
    const disk = disks.disk({
      ...slowDisk([]),
      readVector: record('readVector'),
      writeVector: record('writeVector'),
      discard: record('discard'),
      writeZeroes: record('writeZeroes'),
      flush: record('flush'),
      close: record('close'),
      onResize: (given: unknown) => (calls.push(['onResize', given]), off),
    } as BlockBackend)
    const views = [new Uint8Array(512), new Uint8Array(1024)]
    const all = [disk.discard!(512, 4096), disk.writeZeroes!(1024, 8192), disk.flush(), disk.readVector!(0, views), disk.writeVector!(2048, views)]
    expect(calls).toEqual([])
    pass(1_000_000)
    await Promise.all([...held, ...all])
    const order = (entry: unknown[]) => String(entry[0])
    expect(calls.splice(0).toSorted((a, b) => order(a).localeCompare(order(b)))).toEqual([
      ['discard', 512, 4096],
      ['flush'],
      ['readVector', 0, views],
      ['writeVector', 2048, views],
      ['writeZeroes', 1024, 8192],
    ])
    expect(disk.onResize!(listener)).toBe(off)
    await disk.close()
    expect(calls).toEqual([['onResize', listener], ['close']])
  })

  it('fails a request alone, and the guest goes on', async () => {
    const { held, disk, pass } = bench()
    const bad = expect(disk.read(512, new Uint8Array(512))).rejects.toThrow('bad sector')
    const good = disk.read(1024, new Uint8Array(512))
    pass(60_000)
    await expect(Promise.all(held)).resolves.toBeDefined()
    await Promise.all([bad, good])
  })

  it('hurries where no guest time passes: what waits, and what comes of it', async () => {
    const { clock, log, disks, disk } = bench()
    const first = disk.write(0, new Uint8Array(512))
    await disks.hurry(async () => {
      await first
      await disk.flush()
    })
    expect(log).toEqual(['write 0 begins', 'write 0 ends', 'flush begins', 'flush ends'])
    expect(clock.nextDeadline()).toBe(Infinity)
    void disk.flush()
    expect(clock.nextDeadline()).toBe(50_000)
  })

  it('is what back ends open; all else is theirs', async () => {
    const { disks, log } = bench()
    const raw = slowDisk(log)
    const entropy = { fill() {} }
    const backends: HostBackends = { open: async (kind) => (kind === 'block' ? raw : entropy) as never }
    const wrapped = disks.wrap(backends)
    expect(await wrapped.open('entropy', {})).toBe(entropy)
    const disk = await wrapped.open('block', { image: 'a' })
    expect([disk === raw, disk.size]).toEqual([false, raw.size])
  })
})
