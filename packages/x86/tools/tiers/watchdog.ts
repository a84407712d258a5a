/** Ends the process when one program runs for too long: code that never leaves WebAssembly cannot be interrupted from its own thread. */
import { writeSync } from 'node:fs'
import { isMainThread, Worker, workerData } from 'node:worker_threads'

const LOOKS_EVERY = 5_000

/** Tell it the seed of each program as it begins. `patience` in ms. */
export function watchdog(patience: number): (seed: number) => void {
  const current = new Float64Array(new SharedArrayBuffer(16))
  new Worker(new URL(import.meta.url), { workerData: { current, patience } }).unref()
  return (seed) => {
    current[0] = seed
    current[1]!++
  }
}

if (!isMainThread && (workerData as { patience?: number } | null)?.patience !== undefined) {
  const { current, patience } = workerData as { current: Float64Array; patience: number }
  let [seen, since] = [-1, performance.now()]
  setInterval(() => {
    if (current[1] !== seen) [seen, since] = [current[1]!, performance.now()]
    else if (performance.now() - since > patience) {
      writeSync(2, `seed ${current[0]}: no end after ${patience / 1000} s\n`)
      process.kill(process.pid, 'SIGKILL')
    }
  }, LOOKS_EVERY)
}
