/** What e2fsck finds on a disk whose machine lost its power. Not part of the package. */

import { spawnSync } from 'node:child_process'

/** What an interrupted file system's superblock may have wrong: it is brought up to date when it is unmounted, and counted again when mounted. */
const COUNTS = /^Free (blocks|inodes) count wrong \(\d+, counted=\d+\)\.$/
const PASSES =
  /^(Pass \d.*|Fix\? no|e2fsck .*|.*\*\*\*\*\* WARNING: Filesystem still has errors.*|[^:]+: \d+\/\d+ files .*)?$/

export interface FsckResult {
  /** It was not unmounted: the journal was played back. */
  readonly replayed: boolean
  readonly wrong: readonly string[]
}

/** Plays the journal back, and checks all of the file system then. */
export function fsck(raw: string): FsckResult {
  const header = spawnSync('dumpe2fs', ['-h', raw], { encoding: 'utf8' })
  spawnSync('e2fsck', ['-E', 'journal_only', '-y', raw], { encoding: 'utf8' })
  const check = spawnSync('e2fsck', ['-fn', raw], { encoding: 'utf8' })
  if (check.status === null || check.status > 4) throw new Error(`e2fsck: ${check.stdout}${check.stderr}`)
  const said = check.stdout.split('\n').map((line) => line.trim())
  return {
    replayed: header.stdout.includes('needs_recovery'),
    wrong: said.filter((line) => !PASSES.test(line) && !COUNTS.test(line)),
  }
}
