/** The thread that hostile virtio drivers run in: if one hangs it, the thread is ended from outside and the case is known. */

import { parentPort, workerData } from 'node:worker_threads'
import { fuzzVirtioDevice } from '@nonroot/testkit'
import { virtioCase } from './virtio-cases.ts'

export interface VirtioFuzzJob {
  readonly first: number
  readonly last: number
  /** For disks and shares. */
  readonly folder: string
  readonly device: string | undefined
}

export type VirtioFuzzMessage =
  | { readonly type: 'begin'; readonly seed: number; readonly name: string }
  | {
      readonly type: 'end'
      readonly rounds: number
      readonly buffers: number
      readonly failures: number
      readonly bug?: string
    }

const job = workerData as VirtioFuzzJob
const port = parentPort!
const ROUNDS = 1000
const say = (message: VirtioFuzzMessage): void => port.postMessage(message)

for (let seed = job.first; seed < job.last; seed++) {
  const { name, create, random, request, outside, close } = virtioCase(seed, job.folder, job.device)
  say({ type: 'begin', seed, name })
  let [bug, buffers, failures]: [string | undefined, number, number] = [undefined, 0, 0]
  try {
    const subject = await create()
    await fuzzVirtioDevice(subject, { random, rounds: ROUNDS, request, outside })
    const counted = (name: string): number =>
      Number(subject.bench.context.metrics.samples().find((sample) => sample.name === name)?.value ?? 0)
    ;[buffers, failures] = [counted('buffers'), counted('failures')]
    await subject.device.dispose?.()
    await close()
  } catch (error) {
    bug = (error as Error).stack ?? String(error)
    const { cause } = error as Error
    if (cause instanceof Error) bug += `\ncaused by ${cause.stack}`
  }
  say({ type: 'end', rounds: ROUNDS, buffers, failures, ...(bug === undefined ? {} : { bug }) })
}
