/** A thread that kicks a vCPU of the thread that started it: again and again, each time when the vCPU is inside guest code, and tells how long it took to get out. */

import { parentPort, workerData } from 'node:worker_threads'
import { VcpuKick } from '@nonroot/contracts'
import type { KickAddress } from '@nonroot/contracts'

export interface KickOrder {
  readonly address: KickAddress
  readonly tries: number
  /** Guest code runs undisturbed for so long before each kick. */
  readonly betweenMs: number
}

const { address, tries, betweenMs } = workerData as KickOrder
const kick = new VcpuKick(address)
const words = new Int32Array(address.buffer, address.offset, 2)
const isInside = (): boolean => (Atomics.load(words, 1) & 1) === 1
const pause = new Int32Array(new SharedArrayBuffer(4))
const milliseconds: number[] = []

for (let n = 0; n < tries; n++) {
  do Atomics.wait(pause, 0, 0, betweenMs)
  while (!isInside())
  const started = performance.now()
  const ticket = kick.post()
  const isOut = kick.wait(ticket, 10_000)
  milliseconds.push(isOut ? performance.now() - started : Infinity)
}
parentPort!.postMessage(milliseconds)
