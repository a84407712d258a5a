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

export interface ThreadedRegionService extends RegionService {
  dispose(): void
}

/** Compiles regions on a thread. Requests made while it starts are queued; if it ends, the caller's thread compiles them. */
export function createThreadedRegionService(threads: ThreadBackend, report: (problem: string) => void): ThreadedRegionService {
  const here = createRegionCompiler()
  const waiting = new Map<number, { requests: readonly RegionRequest[]; context: ModuleContext; done: (result: RegionModule) => void }>()
  const contextIds = new Map<ModuleContext, number>()
  let state: 'idle' | 'running' | 'ended' = 'idle'
  let count = 0
  let thread: HostThread | undefined
  const start = (): void => {
    if (state !== 'idle') return
    state = 'running'
    thread = threads.start(new URL(import.meta.url))
    thread.onMessage((message) => {
      const { id, result } = message as Delivery
      const order = waiting.get(id)
      waiting.delete(id)
      order?.done(result)
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
      start()
    },
    compile(requests, context, done) {
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
      waiting.clear()
      thread?.dispose()
    },
  }
}
