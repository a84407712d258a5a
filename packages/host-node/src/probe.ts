/** Importing a module in a thread of its own, to see whether it throws, hangs or ends the process. */

import { Worker } from 'node:worker_threads'
import type { ProbeResult } from '@nonroot/contracts'

/** Plain JavaScript: runs by `eval`, so that it is the same from source and from a build. */
const PROBE = `
import('node:worker_threads').then(({ parentPort, workerData }) => {
  const say = (result) => parentPort.postMessage(result)
  process.exit = (status) => {
    say({ outcome: 'exited', status: Number(status ?? 0) })
    for (;;) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
  }
  import(workerData).then(
    () => say({ outcome: 'loaded' }),
    (error) => {
      let message = 'it threw without saying why'
      try { message = String((error && error.message) || error).split('\\n')[0] } catch {}
      say({ outcome: 'threw', message })
    },
  )
})
`

export async function probeImport(
  entry: string,
  limitMs: number,
  conditions: readonly string[] = [],
): Promise<ProbeResult> {
  const worker = new Worker(PROBE, {
    eval: true,
    workerData: entry,
    stdout: true,
    stderr: true,
    execArgv: conditions.map((condition) => `--conditions=${condition}`),
  })
  let timer: NodeJS.Timeout | undefined
  try {
    return await new Promise<ProbeResult>((resolve) => {
      timer = setTimeout(() => resolve({ outcome: 'timedOut' }), limitMs)
      worker.once('message', resolve)
      worker.once('error', (error: unknown) =>
        resolve({ outcome: 'threw', message: (error as Error)?.message ?? String(error) }),
      )
      // It has nothing left to do and yet never finished: a top-level await that nothing will settle.
      worker.once('exit', () => resolve({ outcome: 'timedOut' }))
    })
  } finally {
    clearTimeout(timer)
    await worker.terminate()
  }
}
