/** `--max-rss`: a process with more resident memory than it may have ends its VMs. */

import { formatSize } from '@nonroot/contracts'
import { sizeOption } from '../size-option.ts'

const EVERY_MS = 250

/** Calls once, with the words for the user. Returns what ends the watch. */
export function watchRss(limit: string | undefined, exceeded: (words: string) => void): () => void {
  if (limit === undefined) return () => {}
  const most = sizeOption('--max-rss', limit)
  const timer = setInterval(() => {
    const resident = process.memoryUsage.rss()
    if (resident <= most) return
    clearInterval(timer)
    exceeded(`the process has ${formatSize(Math.ceil(resident / (1 << 20)) << 20)} of resident memory, more than --max-rss ${limit}`)
  }, EVERY_MS)
  timer.unref()
  return () => clearInterval(timer)
}
