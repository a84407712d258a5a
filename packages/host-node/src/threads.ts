/** Worker threads for work beside a VM's own thread. */

import { Worker } from 'node:worker_threads'
import type { ThreadBackend } from '@nonroot/contracts'

/** Of our own options of Node: where packages come from. Others may not suit a thread. */
export const workerOptions = (): string[] =>
  process.execArgv.filter(
    (word, index, all) => /^(--conditions|-C)/.test(word) || /^(--conditions|-C)$/.test(all[index - 1] ?? ''),
  )

/**
 * The young generation of a thread, three times its semi-space. V8's own limit grows with the machine's memory, to 192 MB, and a thread that is idle keeps
 * what it had. A compiler makes much garbage, a VM little.
 */
export const threadLimits = (semiSpaceMb: number) => ({ maxYoungGenerationSizeMb: 3 * semiSpaceMb })

export function createNodeThreads(): ThreadBackend {
  // Beside this file, from source and from a build.
  const entry = new URL(`./thread-entry${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)
  return {
    start(module) {
      const worker = new Worker(entry, {
        workerData: module.href,
        execArgv: workerOptions(),
        resourceLimits: threadLimits(8),
      })
      worker.unref()
      return {
        post: (message) => worker.postMessage(message),
        onMessage: (listener) => void worker.on('message', listener),
        onEnd: (listener) => {
          worker.on('error', (error) => listener(String(error)))
          worker.on('exit', (status) => listener(`it ended with status ${status}`))
        },
        dispose: () => void worker.terminate(),
      }
    },
  }
}
