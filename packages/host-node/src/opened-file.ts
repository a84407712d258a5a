/** A file that is read in parts, straight to where its bytes are wanted. */

import fs from 'node:fs'
import type { OpenedFile } from '@nonroot/contracts'

/** Undefined: it has no size, as a pipe, and can only be read at once. Throws what Node throws. */
export function openForReading(path: string): OpenedFile | undefined {
  // Before it is opened: opening a pipe blocks until it has a writer. Files of /proc say that they are empty.
  const stat = fs.statSync(path)
  if (!stat.isFile() || stat.size === 0) return undefined
  const fd = fs.openSync(path, 'r')
  const moved = (count: number, at: number): number => {
    if (count === 0) throw new Error(`${path} ends at ${at}: another process truncated it`)
    return count
  }
  return {
    length: fs.fstatSync(fd).size,
    read(at, length) {
      const bytes = new Uint8Array(length)
      for (let done = 0; done < length;)
        done += moved(fs.readSync(fd, bytes, done, length - done, at + done), at + done)
      return bytes
    },
    async readInto(start, views) {
      let at = start
      for (const view of views)
        for (let done = 0; done < view.length;) {
          const count = await new Promise<number>((resolve, reject) =>
            fs.read(fd, view, done, view.length - done, at, (error, got) => (error ? reject(error) : resolve(got))),
          )
          done += moved(count, at)
          at += count
        }
    },
    close: () => fs.closeSync(fd),
  }
}
