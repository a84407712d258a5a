/** How much a guest can do without, as the statistics of its balloon say. */

import { FRAME_SIZE } from '@nonroot/contracts'
import type { Member } from '../member.ts'

/** What is left to the guest of the memory that it calls available: part of its total, and at least so many bytes. */
const MARGIN_PART = 1 / 16
const MARGIN_BYTES = 8 * 2 ** 20
/** How long a guest has to answer. Milliseconds. */
const PATIENCE_MS = 500

/** In frames; or why there is nothing. */
export async function roomOf({ name, frames, balloon }: Member): Promise<number | string> {
  const statistics = balloon && (await within(balloon.statistics(), PATIENCE_MS))
  const available = statistics?.availableBytes ?? statistics?.freeBytes
  if (available === undefined) return `${name}'s guest does not answer for its balloon`
  const margin = Math.max(MARGIN_BYTES, (statistics?.totalBytes ?? frames.size) * MARGIN_PART)
  const room = Math.floor((available - margin) / FRAME_SIZE)
  return room > 0 ? room : `${name}'s guest has no memory to spare`
}

async function within<T>(promise: Promise<T>, ms: number): Promise<T | undefined> {
  let timeout: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<undefined>((resolve) => void (timeout = setTimeout(() => resolve(undefined), ms)))
  return Promise.race([promise, late]).finally(() => clearTimeout(timeout))
}
