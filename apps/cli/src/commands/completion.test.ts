/** Completion, as the shells that are installed do it with our scripts. */

import { spawnSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cli, folderWith } from '../testing/cli.ts'

const SHELLS = ['bash', 'zsh', 'fish']
const has = (shell: string): boolean => spawnSync(shell, ['--version']).status === 0
let folder: string
let remove: () => void
beforeAll(async () => {
  ;({ folder, remove } = await folderWith({ 'disk.img': '', 'web.yaml': '' }))
  for (const shell of SHELLS) writeFileSync(join(folder, `complete.${shell}`), (await cli('completion', shell)).out)
  // What is asked for the VMs that run.
  writeFileSync(join(folder, 'nonroot'), '#!/bin/sh\necho HOST NAME\necho 1 web\necho 1 db\n', { mode: 0o755 })
})
afterAll(() => remove())

/** The script of a shell that completes the last word of a line, and prints what may be there. */
const ask: Record<string, (line: string) => string> = {
  bash: (line) => `. ./complete.bash; COMP_WORDS=(${line.replace(/ $/, " ''")}); COMP_CWORD=$((\${#COMP_WORDS[@]} - 1)); _nonroot; printf '%s\\n' "\${COMPREPLY[@]}"`,
  fish: (line) => `source ./complete.fish; complete -C '${line}'`,
}
function complete(shell: string, line: string): string[] {
  const env = { ...process.env, PATH: `${folder}:${process.env['PATH']}`, HOME: folder }
  const { stdout, stderr } = spawnSync(shell, ['-c', ask[shell]!(line)], { cwd: folder, env, encoding: 'utf8' })
  expect(stderr).toBe('')
  return stdout.split('\n').filter(Boolean).map((word) => word.replace(/\t.*/, ''))
}

describe.each(Object.keys(ask))('%s', (shell) => {
  it.skipIf(!has(shell)).each([
    { line: 'nonroot im', words: ['image'] },
    { line: 'nonroot image ', words: ['debian', 'disk', 'ls', 'prune'] },
    { line: 'nonroot run --ti', words: ['--timeout'] },
    { line: 'nonroot run --stats ', words: ['text', 'json'] },
    { line: 'nonroot run --disk di', words: ['disk.img'] },
    { line: 'nonroot run kvm-', words: ['kvm-like', 'kvm-like-shadow'] },
    { line: 'nonroot run we', words: ['web.yaml'] },
    { line: 'nonroot exec ', words: ['web', 'db'] },
    { line: 'nonroot run --memory ', words: [] },
    { line: 'nonroot completion ', words: SHELLS },
  ])('$line', ({ line, words }) => {
    expect(complete(shell, line).toSorted()).toEqual(words.toSorted())
  })
})

it.skipIf(!has('zsh'))('zsh takes the script', () => {
  const { stdout, stderr } = spawnSync('zsh', ['-fc', '. ./complete.zsh; whence -w _nonroot; print $_comps[nonroot]'], { cwd: folder, encoding: 'utf8' })
  expect([stdout, stderr]).toEqual([expect.stringMatching(/^_nonroot: function\n.*_nonroot/), ''])
})

it('names the shells that it knows', async () => {
  const { status, err } = await cli('completion', 'tcsh')
  expect([status, err]).toEqual([2, expect.stringContaining('Allowed choices are bash, zsh, fish') as string])
})
