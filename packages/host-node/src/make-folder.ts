/** Makes a folder and those above it. Node's `recursive: true` tries for ever where the system says ENOENT of a name in a folder that is there, as below /proc. */

import { mkdirSync, statSync } from 'node:fs'
import { dirname } from 'node:path'

/** Nothing happens where there is such a folder. `mode`: of those that are made. Throws the system's error. */
export function makeFolder(path: string, mode?: number): void {
  try {
    makeOne(path, mode)
  } catch (error) {
    const above = dirname(path)
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT' || above === path) throw error
    makeFolder(above, mode)
    makeOne(path, mode)
  }
}

function makeOne(path: string, mode: number | undefined): void {
  try {
    mkdirSync(path, mode)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST' || !statSync(path).isDirectory()) throw error
  }
}
