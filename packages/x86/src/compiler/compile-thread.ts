/** The compiler tier on its own thread: the server, and the service that sends it requests. */
import type { HostThread, ServeThread, ThreadBackend } from '@nonroot/contracts'
import type { ModuleContext } from '../ir/function.ts'
import { createRegionCompiler, type RegionModule, type RegionRequest, type RegionService } from './region-service.ts'

interface Order {
  readonly id: number
  readonly requests: readonly RegionRequest[]
  /** Number of the processor's module context, with the context itself the first time. */
  readonly contextId: number
  readonly context: ModuleContext | undefined
}
interface Delivery {
  readonly id: number
  readonly result: RegionModule
}

/** Runs on the compiling thread. */
export const serve: ServeThread = (port) => {
  const compiler = createRegionCompiler()
  const contexts: ModuleContext[] = []
  port.onMessage((message) => {
    const { id, requests, contextId, context } = message as Order
    if (context) contexts[contextId] = context
    compiler.compile(requests, contexts[contextId]!, (result) => port.post({ id, result } satisfies Delivery))
  })
}

/** How often it is looked at whether the thread is worth its memory, milliseconds: its heap and compiled code are 20 to 60 MB (docs/memory.md). */
const LOOK_MS = 10_000
/** A thread that had fewer requests in this time is ended. An idle guest has one every few seconds: code of its timers that becomes hot in the end. */
const FEW = 8
/** Without a thread, so many requests in this time, milliseconds, start one; fewer are compiled by the thread that asks. A boot whose code is remembered has some. */
const BURST = 32
const BURST_MS = 1000

export interface ThreadedRegionService extends RegionService {
  dispose(): void
}

/**
 * Compiles regions on a thread. Requests made while it starts are queued; if it ends by itself, the caller's thread compiles them. A thread that has little to
 * do is ended, and the next burst of requests starts another.
 */
export function createThreadedRegionService(threads: ThreadBackend, report: (problem: string) => void): ThreadedRegionService {
  const here = createRegionCompiler()
  const waiting = new Map<number, { requests: readonly RegionRequest[]; context: ModuleContext; done: (result: RegionModule) => void }>()
  const contextIds = new Map<ModuleContext, number>()
  let state: 'idle' | 'running' | 'ended' = 'idle'
  let wasStarted = false
  let look: ReturnType<typeof setTimeout> | undefined
  /** Requests since the last look; or, without a thread, since a burst may have begun. */
  let recent = 0
  let burstMs = 0
  let count = 0
  let thread: HostThread | undefined
  const start = (): void => {
    if (state !== 'idle') return
    state = 'running'
    wasStarted = true
    watch()
    const started = threads.start(new URL(import.meta.url))
    thread = started
    started.onMessage((message) => {
      const { id, result } = message as Delivery
      const order = waiting.get(id)
      waiting.delete(id)
      order?.done(result)
    })
    started.onEnd((reason) => {
      if (state === 'ended' || thread !== started) return
      state = 'ended'
      clearTimeout(look)
      report(`the thread that compiles guest code is gone (${reason}): from now on the vCPU's own does it`)
      for (const { requests, context, done } of waiting.values()) here.compile(requests, context, done)
      waiting.clear()
    })
  }
  const watch = (): void => {
    recent = 0
    look = setTimeout(() => (recent < FEW && waiting.size === 0 ? pause() : watch()), LOOK_MS)
  }
  const pause = (): void => {
    if (state !== 'running') return
    state = 'idle'
    recent = 0
    contextIds.clear()
    const old = thread
    thread = undefined
    old?.dispose()
  }
  /** Without a thread: whether so many more requests make a burst. */
  const isBurst = (requests: number): boolean => {
    const now = performance.now()
    if (now - burstMs > BURST_MS) [burstMs, recent] = [now, 0]
    return recent + requests >= BURST
  }
  return {
    prepare() {
      if (!wasStarted) start()
    },
    compile(requests, context, done) {
      if (state === 'idle' && isBurst(requests.length)) start()
      recent += requests.length
      if (state !== 'running') return here.compile(requests, context, done)
      const id = count++
      waiting.set(id, { requests, context, done })
      const known = contextIds.get(context)
      const contextId = known ?? contextIds.size
      contextIds.set(context, contextId)
      thread!.post({ id, requests, contextId, context: known === undefined ? context : undefined } satisfies Order)
    },
    dispose() {
      state = 'ended'
      clearTimeout(look)
      waiting.clear()
      thread?.dispose()
    },
  }
}
