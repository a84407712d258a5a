/** The thread that runs hostile guests: if one hangs it, the thread is ended from outside and the case is known. */

import { readFile } from 'node:fs/promises'
import { parentPort, workerData } from 'node:worker_threads'
import { NonrootError } from '@nonroot/contracts'
import { createNodeBackends } from '@nonroot/host-node'
import { createHypervisor, loadStack } from '@nonroot/hypervisor'
import { defaultStack, moduleSource } from '../../src/host.ts'
import { fuzzCase } from './cases.ts'
import type { FuzzCase, FuzzFile } from './cases.ts'

export interface FuzzJob {
  readonly first: number
  readonly files: readonly { readonly protocol: FuzzFile['protocol']; readonly path: string }[]
  readonly initrds: readonly string[]
}

export type FuzzMessage =
  | { readonly type: 'begin'; readonly seed: number; readonly family: string; readonly limitMs: number }
  | { readonly type: 'end'; readonly seed: number; readonly outcome: string; readonly bug: boolean }

const { first, files: paths, initrds: archives } = workerData as FuzzJob
const port = parentPort!
const source = moduleSource()

const files: FuzzFile[] = await Promise.all(
  paths.map(async ({ protocol, path }) => ({ name: path, protocol, bytes: new Uint8Array(await readFile(path)) })),
)

const initrds = await Promise.all(archives.map(async (path) => new Uint8Array(await readFile(path))))

async function play({ protocol, image, set, limitMs }: FuzzCase): Promise<string> {
  const key = protocol === 'firmware' ? 'image' : 'kernel'
  const boot = `boot=${JSON.stringify({ use: '@nonroot/boot', [protocol]: { [key]: 'given' } })}`
  const stack = await loadStack(defaultStack(), { source, set: [...set, boot] })
  const hypervisor = await createHypervisor(stack, { backends: createNodeBackends() })
  try {
    const sink = { write: () => {}, onInput: () => () => {}, size: () => undefined, onResize: () => () => {} }
    const vm = await hypervisor.createVm({ image, console: sink as never })
    const timer = setTimeout(() => vm.stop(), limitMs)
    const end = await vm.run()
    clearTimeout(timer)
    return end.state === 'crashed' ? `crashed: ${end.reason.replaceAll(/0x[0-9a-f]+|\d+/gi, '#')}` : end.state
  } finally {
    await hypervisor.dispose()
  }
}

for (let seed = first; ; seed++) {
  const case_ = fuzzCase(seed, files, initrds)
  port.postMessage({ type: 'begin', seed, family: case_.family, limitMs: case_.limitMs } satisfies FuzzMessage)
  let outcome: string
  let bug = false
  try {
    outcome = await play(case_)
  } catch (error) {
    bug = !(error instanceof NonrootError) || error.code === ('internal' as string)
    outcome = bug ? String((error as Error).stack ?? error) : `refused: ${(error as NonrootError).code}`
  }
  port.postMessage({ type: 'end', seed, outcome, bug } satisfies FuzzMessage)
}
