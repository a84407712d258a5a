/**
 * What processors that share a host's memory, on one thread, tell each other of their code: a page that had none has some now. Writes to it are to take
 * the slow path on each of them, from when it next runs. Which pages have code is in `HostMemory.codeHolders`.
 */
import type { HostMemory } from '@nonroot/contracts'

export interface SharedCode {
  /** How often a page got code that had none. */
  pages: number
}

const known = new WeakMap<HostMemory, SharedCode>()

export function sharedCodeOf(memory: HostMemory): SharedCode {
  let shared = known.get(memory)
  if (!shared) known.set(memory, (shared = { pages: 0 }))
  return shared
}
