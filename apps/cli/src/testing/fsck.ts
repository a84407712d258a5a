/** What e2fsck finds on a disk whose machine lost its power. Not part of the package. */

import { spawnSync } from 'node:child_process'

/** What an interrupted file system's superblock may have wrong: it is brought up to date when it is unmounted, and counted again when mounted. */
const COUNTS = /^Free (blocks|inodes) count wrong \(\d+, counted=\d+\)\.$/
const PASSES =
  /^(Pass \d.*|Fix\? no|e2fsck .*|.*\*\*\*\*\* WARNING: Filesystem still has errors.*|[^:]+: \d+\/\d+ files .*)?$/

export interface FsckResult {
  readonly replayed: boolean
  readonly wrong: readonly string[]
}

/** Of a disk that was not unmounted: the journal is played back (`replayed`), and then nothing is wrong. (e2fsck(8): 1 is "errors corrected", the journal's) */
export function fsck(raw: string): FsckResult {
  const replay = spawnSync('e2fsck', ['-E', 'journal_only', '-y', raw], { encoding: 'utf8' })
  const check = spawnSync('e2fsck', ['-fn', raw], { encoding: 'utf8' })
  if (check.status === null || check.status > 4) throw new Error(`e2fsck: ${check.stdout}${check.stderr}`)
  const said = check.stdout.split('\n').map((line) => line.trim())
  return { replayed: replay.status === 1, wrong: said.filter((line) => !PASSES.test(line) && !COUNTS.test(line)) }
}
