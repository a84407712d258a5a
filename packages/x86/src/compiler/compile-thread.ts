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

/** A thread that had nothing to compile for so long is ended, milliseconds: its heap and compiled code are 40 to 150 MB (docs/memory.md). */
const IDLE_MS = 10_000

export interface ThreadedRegionService extends RegionService {
  dispose(): void
}

/**
 * Compiles regions on a thread. Requests made while it starts are queued; if it ends by itself, the caller's thread compiles them. A thread that is idle is
 * ended, and the next request starts another.
 */
export function createThreadedRegionService(threads: ThreadBackend, report: (problem: string) => void): ThreadedRegionService {
  const here = createRegionCompiler()
  const waiting = new Map<number, { requests: readonly RegionRequest[]; context: ModuleContext; done: (result: RegionModule) => void }>()
  const contextIds = new Map<ModuleContext, number>()
  let state: 'idle' | 'running' | 'ended' = 'idle'
  let wasStarted = false
  let idle: ReturnType<typeof setTimeout> | undefined
  let count = 0
  let thread: HostThread | undefined
  const start = (): void => {
    if (state !== 'idle') return
    state = 'running'
    wasStarted = true
    const started = threads.start(new URL(import.meta.url))
    thread = started
    started.onMessage((message) => {
      const { id, result } = message as Delivery
      const order = waiting.get(id)
      waiting.delete(id)
      if (waiting.size === 0) idle = setTimeout(pause, IDLE_MS)
      order?.done(result)
    })
    started.onEnd((reason) => {
      if (state === 'ended' || thread !== started) return
      state = 'ended'
      report(`the thread that compiles guest code is gone (${reason}): from now on the vCPU's own does it`)
      for (const { requests, context, done } of waiting.values()) here.compile(requests, context, done)
      waiting.clear()
    })
  }
  const pause = (): void => {
    if (state !== 'running') return
    state = 'idle'
    contextIds.clear()
    const old = thread
    thread = undefined
    old?.dispose()
  }
  return {
    prepare() {
      if (!wasStarted) start()
    },
    compile(requests, context, done) {
      clearTimeout(idle)
      start()
      if (state === 'ended') return here.compile(requests, context, done)
      const id = count++
      waiting.set(id, { requests, context, done })
      const known = contextIds.get(context)
      const contextId = known ?? contextIds.size
      contextIds.set(context, contextId)
      thread!.post({ id, requests, contextId, context: known === undefined ? context : undefined } satisfies Order)
    },
    dispose() {
      state = 'ended'
      clearTimeout(idle)
      waiting.clear()
      thread?.dispose()
    },
  }
}
