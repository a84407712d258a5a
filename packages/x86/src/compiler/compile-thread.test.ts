import { afterAll, afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import type { ThreadBackend } from '@nonroot/contracts'
import type { ModuleContext } from '../ir/function.ts'
import { createThreadedRegionService } from './compile-thread.ts'
import type { RegionRequest } from './region-service.ts'

const CONTEXT = {} as ModuleContext
const RESULT = { module: undefined, bytes: 0, milliseconds: 0, regions: [] }

/** For code that does not compile: HLT. */
const requests = (count: number): RegionRequest[] =>
  Array.from({ length: count }, () => ({ bytes: new Uint8Array(4096).fill(0xf4), entry: 0, mode: 0, entries: [], targets: [], trapped: [] }))

/** Threads that answer when they are asked to. */
function bench() {
  const threads: { posted: { id: number; context: unknown }[]; answer: (message: unknown) => void; end: (why: string) => void; isEnded: boolean }[] = []
  const backend: ThreadBackend = {
    start() {
      const thread: (typeof threads)[number] = { posted: [], answer: () => {}, end: () => {}, isEnded: false }
      threads.push(thread)
      return {
        post: (message) => void thread.posted.push(message as never),
        onMessage: (listener) => void (thread.answer = listener),
        onEnd: (listener) => void (thread.end = listener),
        dispose: () => {
          thread.isEnded = true
          thread.end('it ended with status 1')
        },
      }
    },
  }
  const problems: string[] = []
  const service = createThreadedRegionService(backend, (problem) => problems.push(problem))
  return { threads, service, problems, live: () => threads.filter(({ isEnded }) => !isEnded).length }
}

describe('the thread that compiles', () => {
  beforeAll(() => void vi.useFakeTimers())
  afterAll(() => void vi.useRealTimers())
  afterEach(() => void vi.clearAllTimers())

  it('is ended after 10 s with few requests, and started again by a burst, with its context again', () => {
    const { threads, service, live, problems } = bench()
    const done = vi.fn()
    service.prepare!()
    expect(live()).toBe(1)
    service.compile(requests(7), CONTEXT, done)
    vi.advanceTimersByTime(60_000)
    expect(live(), 'a request is waiting').toBe(1)
    threads[0]!.answer({ id: 0, result: RESULT })
    service.compile(requests(8), CONTEXT, done)
    threads[0]!.answer({ id: 1, result: RESULT })
    expect(threads[0]!.posted.map(({ context }) => context)).toEqual([CONTEXT, undefined])
    vi.advanceTimersByTime(10_000)
    expect(live(), 'it had 8').toBe(1)
    service.compile(requests(7), CONTEXT, done)
    threads[0]!.answer({ id: 2, result: RESULT })
    vi.advanceTimersByTime(9_999)
    expect(live()).toBe(1)
    vi.advanceTimersByTime(1)
    expect(live()).toBe(0)
    service.prepare!()
    expect(live(), 'the guest runs, but has nothing to compile').toBe(0)
    service.compile(requests(32), CONTEXT, done)
    expect(live()).toBe(1)
    expect(threads[1]!.posted).toMatchObject([{ id: 3, context: CONTEXT }])
    threads[1]!.answer({ id: 3, result: RESULT })
    expect(done).toHaveBeenCalledTimes(4)
    expect(problems).toEqual([])
    service.dispose()
    expect(live()).toBe(0)
  })

  it('is started by a burst where nothing said that there will be something to compile', () => {
    const { service, live } = bench()
    service.compile(requests(31), CONTEXT, vi.fn())
    expect(live()).toBe(0)
    service.compile(requests(1), CONTEXT, vi.fn())
    expect(live()).toBe(1)
  })

  it('once ended, is not started for a few requests: the thread that asks compiles them', () => {
    const { service, live } = bench()
    const done = vi.fn()
    service.prepare!()
    vi.advanceTimersByTime(10_000)
    for (let second = 0; second < 20; second++) {
      service.compile(requests(4), CONTEXT, done)
      vi.advanceTimersByTime(1001)
    }
    expect([live(), done.mock.calls.length]).toEqual([0, 20])
    expect(done).toHaveBeenLastCalledWith(expect.objectContaining({ regions: [undefined, undefined, undefined, undefined] }))
    // Within a second.
    for (let part = 0; part < 2; part++) service.compile(requests(16), CONTEXT, done)
    expect([live(), done.mock.calls.length]).toEqual([1, 21])
  })

  it('is replaced by the thread that asks if it ends by itself', () => {
    const { threads, service, problems } = bench()
    const done = vi.fn()
    service.prepare!()
    service.compile([], CONTEXT, done)
    threads[0]!.end('out of memory')
    expect(done).toHaveBeenCalledOnce()
    service.compile([], CONTEXT, done)
    expect(done).toHaveBeenCalledTimes(2)
    expect(threads).toHaveLength(1)
    expect(problems).toEqual([expect.stringContaining('(out of memory)')])
  })
})
