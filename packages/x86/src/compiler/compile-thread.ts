/** The compiler tier on a thread of its own: what is served there, and the service that asks it. */
import type { HostThread, ServeThread, ThreadBackend } from '@nonroot/contracts'
import type { ModuleContext } from '../lower/function-module.ts'
import { createRegionCompiler, type RegionModule, type RegionRequest, type RegionService } from './region-service.ts'

interface Order {
  readonly id: number
  readonly requests: readonly RegionRequest[]
  /** Number of the processor's module context, and, the first time, what it is. */
  readonly contextId: number
  readonly context: ModuleContext | undefined
}
/** `id` -1 and nothing else: the thread is ready. */
interface Delivery {
  readonly id: number
  readonly result?: RegionModule
}
const READY = -1

/** Runs on the thread. */
export const serve: ServeThread = (port) => {
  const compiler = createRegionCompiler()
  const contexts: ModuleContext[] = []
  port.onMessage((message) => {
    const { id, requests, contextId, context } = message as Order
    if (context) contexts[contextId] = context
    compiler.compile(requests, contexts[contextId]!, (result) => port.post({ id, result } satisfies Delivery))
  })
  port.post({ id: READY } satisfies Delivery)
}

export interface ThreadedRegionService extends RegionService {
  dispose(): void
}

/** Regions from a thread. Before it is there, and should it end, they are made by the caller's own. */
export function createThreadedRegionService(threads: ThreadBackend, report: (problem: string) => void): ThreadedRegionService {
  const here = createRegionCompiler()
  const waiting = new Map<number, { requests: readonly RegionRequest[]; context: ModuleContext; done: (result: RegionModule) => void }>()
  const contextIds = new Map<ModuleContext, number>()
  let state: 'idle' | 'starting' | 'ready' | 'ended' = 'idle'
  let count = 0
  let thread: HostThread | undefined
  const start = (): void => {
    state = 'starting'
    thread = threads.start(new URL(import.meta.url))
    thread.onMessage((message) => {
      const { id, result } = message as Delivery
      if (id === READY) state = 'ready'
      const order = waiting.get(id)
      waiting.delete(id)
      order?.done(result!)
    })
    thread.onEnd((reason) => {
      if (state === 'ended') return
      state = 'ended'
      report(`the thread that compiles guest code is gone (${reason}): from now on the vCPU's own does it`)
      for (const { requests, context, done } of waiting.values()) here.compile(requests, context, done)
      waiting.clear()
    })
  }
  return {
    prepare() {
      if (state === 'idle') start()
    },
    compile(requests, context, done) {
      if (state !== 'ready') return here.compile(requests, context, done)
      const id = count++
      waiting.set(id, { requests, context, done })
      const known = contextIds.get(context)
      const contextId = known ?? contextIds.size
      contextIds.set(context, contextId)
      thread!.post({ id, requests, contextId, context: known === undefined ? context : undefined } satisfies Order)
    },
    dispose() {
      state = 'ended'
      waiting.clear()
      thread?.dispose()
    },
  }
}
