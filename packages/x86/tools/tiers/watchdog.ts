/**
 * Ends the process when one program runs for too long: code that never leaves WebAssembly cannot be interrupted from its own thread. Counts
 * processor time, so that a process that is starved on a busy machine is not ended.
 */
import { writeSync } from 'node:fs'
import { isMainThread, Worker, workerData } from 'node:worker_threads'

const LOOKS_EVERY = 5_000

/** Tell it the seed of each program as it begins. `patience` in ms of processor time of this process. */
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
  const processorTime = (): number => {
    const { user, system } = process.cpuUsage()
    return (user + system) / 1000
  }
  let [seen, since] = [-1, processorTime()]
  setInterval(() => {
    if (current[1] !== seen) [seen, since] = [current[1]!, processorTime()]
    else if (processorTime() - since > patience) {
      writeSync(2, `seed ${current[0]}: no end after ${patience / 1000} s of processor time\n`)
      process.kill(process.pid, 'SIGKILL')
    }
  }, LOOKS_EVERY)
}
