/** Starts the VM's thread as early as possible, because it loads more than the rest of the command. Independent of what it runs. */

import { Worker } from 'node:worker_threads'
import { threadLimits, workerOptions } from '@nonroot/host-node'

let spare: Worker | undefined

function start(): Worker {
  // Beside this file, from source and from a build.
  const file = new URL(`./vm-thread${import.meta.url.endsWith('.ts') ? '.ts' : '.js'}`, import.meta.url)
  return new Worker(file, { execArgv: workerOptions(), resourceLimits: threadLimits(4) })
}

/** For the next caller. */
export function startThread(): void {
  spare ??= start()
}

/** A thread that waits for its first message. It is the caller's from here on. */
export function takeThread(): Worker {
  const thread = spare ?? start()
  spare = undefined
  return thread
}

/** No caller took it: the command cannot be run. */
export async function dropThread(): Promise<void> {
  const thread = spare
  spare = undefined
  await thread?.terminate()
}
