/** What a worker thread of `createNodeThreads` runs: the module it was started for. */

import { parentPort, workerData } from 'node:worker_threads'
import type { ServeThread } from '@nonroot/contracts'

const port = parentPort!
const { serve } = (await import(workerData as string)) as { serve: ServeThread }
serve({
  post: (message) => port.postMessage(message),
  onMessage: (listener) => void port.on('message', listener),
})
