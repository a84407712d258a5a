/** A file that is read in parts, straight to where its bytes are wanted. */

import fs from 'node:fs'
import type { OpenedFile } from '@nonroot/contracts'

/** Undefined: it has no size, as a pipe, and can only be read at once. Throws what Node throws. */
export function openForReading(path: string): OpenedFile | undefined {
  // Before it is opened: that waits for whoever writes into a pipe. Files of /proc say that they are empty.
  const stat = fs.statSync(path)
  if (!stat.isFile() || stat.size === 0) return undefined
  const fd = fs.openSync(path, 'r')
  return {
    length: fs.fstatSync(fd).size,
    readInto(at, views) {
      let position = at
      for (const view of views)
        for (let done = 0; done < view.length;) {
          const count = fs.readSync(fd, view, done, view.length - done, position)
          if (count === 0) throw new Error(`${path} ends at ${position}: somebody made it shorter`)
          done += count
          position += count
        }
    },
    close: () => fs.closeSync(fd),
  }
}
