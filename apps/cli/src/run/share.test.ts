/**
 * A folder shared by 9P under Linux's own driver: git's work on it, judged by the host's file system and by git, and a guest that tries to
 * get out by links. Takes minutes, and the network the first time: NONROOT_DEBIAN=1 npx vitest run src/run/share.test.ts
 */

import { execFileSync } from 'node:child_process'
import {
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'
import { debianEnv as env, guestOf } from '../testing/debian.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-share-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const MOUNT =
  'mkdir -p /mnt/host && mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 host /mnt/host && cd /mnt/host || exit 9\n'
const COMPLAINTS = `dmesg -r | grep '^<[0-4]>' | grep -iE '9p|virtio|v9fs|BUG|WARN'\n`

/** Many files, branches, a merge, packs, hard links by clone, locks by every command, renames over what is there. */
const GIT = `
export HOME=/tmp GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a@b
export GIT_AUTHOR_DATE='2024-01-01T00:00:00Z' GIT_COMMITTER_DATE='2024-01-01T00:00:00Z' GIT_CONFIG_NOSYSTEM=1
git config --global init.defaultBranch main; git config --global gc.auto 0
# What it says counts only if it fails.
check() { git -C $1 fsck --full --strict >/tmp/fsck 2>&1 || { cat /tmp/fsck; exit 1; }; }
set -e
git init -q repo; cd repo
for round in 1 2 3 4; do
  mkdir -p d$round/e
  for file in 1 2 3 4 5 6 7 8; do seq $round $((round * file * 40)) > d$round/e/f$file; done
  ln -s ../d1/e/f1 d$round/link; chmod +x d$round/e/f1
  git add -A; git commit -q -m "round $round"
done
git checkout -q -b side HEAD~2; git mv d1/e d1/moved; git commit -q -a -m moved
git checkout -q main; git merge -q -m merged side; git tag -a -m tag v1
git gc -q; check .
git clone -q /mnt/host/repo ../clone; check ../clone; git -C ../clone rev-parse HEAD
git -C ../clone checkout -q v1~1; rm -rf ../clone
git status --short; git rev-parse HEAD; git count-objects -v | grep -E '^(count|packs|garbage)'
`

/** Links that lead out, made here and on the host; folders that become links while others walk through them; names of all kinds. */
const ATTACK = `
cat up/secret inner/absolute up/../secret 2>/dev/null
echo changed > inner/absolute; echo changed > up/secret
rm -f up/secret; mkdir up/new; mv inner/file up/stolen; ln inner/absolute hard; cat hard
ln -s ../../outside/secret made; cat made; ln made made2; chmod 777 made; touch -h made
mkdir race race/d; echo mine > race/d/secret
( while [ ! -e race/stop ]; do mv race/d race/e; ln -s ../../outside race/d; rm race/d; mv race/e race/d; done ) 2>/dev/null &
i=0; while [ $i -lt 100 ]; do cat race/d/secret; echo changed > race/d/secret; rm -f race/d/stolen; touch race/d/stolen; i=$((i + 1)); done 2>/dev/null | sort | uniq -c | sed 's/^ *[0-9]* //'
touch race/stop; wait
mknod device b 8 0; mknod pipe p; cp /bin/busybox suid && chmod 4755 suid; ls -l suid | cut -c1-10
`

async function run(shared: string, script: string): Promise<string> {
  const stack = {
    apiVersion: 'nonroot/v1',
    extends: join(import.meta.dirname, '../../../../stacks/kvm-like.yaml'),
    stack: { io: [{ use: '@nonroot/io-emulated' }, { use: '@nonroot/io-virtio' }] },
    devices: [{ kind: 'virtio-9p', path: shared, tag: 'host' }],
  }
  const file = join(folder, 'stack.yaml')
  writeFileSync(file, JSON.stringify(stack))
  const guest = await guestOf('generic', ['git', 'socat'])
  const command = ['run', file, ...guest, '--timeout', '40m', '--', 'sh', '-c', MOUNT + script]
  const { out, err } = await spawnCli(command, { env })
  return out === '' ? err : out
}

describe.skipIf(!process.env['NONROOT_DEBIAN'])('a shared folder under Linux', { timeout: 3_000_000 }, () => {
  it('survives what git does', async () => {
    const shared = join(folder, 'work')
    mkdirSync(shared)
    const out = await run(shared, `(${GIT}) || echo failed\n${COMPLAINTS}`)
    const [clone, head, ...rest] = out.trim().split('\n')
    expect(head, out).toMatch(/^[0-9a-f]{40}$/)
    expect([clone, rest], out).toEqual([head, ['count: 0', 'packs: 1', 'garbage: 0']])
    // The host's git finds the same.
    const git = (...args: string[]) =>
      execFileSync('git', ['-c', 'safe.directory=*', '-C', join(shared, 'repo'), ...args], { encoding: 'utf8' })
    expect(git('rev-parse', 'HEAD').trim()).toBe(head)
    git('fsck', '--full', '--strict')
    expect(git('status', '--short')).toBe('')
    expect(git('log', '--oneline', '--all').trim().split('\n')).toHaveLength(6)
    expect(lstatSync(join(shared, 'repo/d2/link')).isSymbolicLink()).toBe(true)
    expect(lstatSync(join(shared, 'repo/d2/e/f1')).mode & 0o111).toBe(0o111)
    expect(readdirSync(shared)).toEqual(['repo'])
  })

  it('lets nobody out by links', async () => {
    const home = join(folder, 'attack')
    const shared = join(home, 'shared')
    mkdirSync(join(shared, 'inner'), { recursive: true })
    mkdirSync(join(home, 'outside'))
    writeFileSync(join(home, 'outside/secret'), 'SECRET\n')
    writeFileSync(join(shared, 'inner/file'), 'file\n')
    symlinkSync('../outside', join(shared, 'up'))
    symlinkSync(join(home, 'outside/secret'), join(shared, 'inner/absolute'))
    const out = await run(shared, `(${ATTACK}) 2>/dev/null\n${COMPLAINTS}echo end\n`)
    expect(out).toContain('end')
    expect(out).not.toContain('SECRET')
    expect(readFileSync(join(home, 'outside/secret'), 'utf8')).toBe('SECRET\n')
    expect(readdirSync(join(home, 'outside'))).toEqual(['secret'])
    expect(readdirSync(home).toSorted()).toEqual(['outside', 'shared'])
    expect(lstatSync(join(home, 'outside/secret')).nlink).toBe(1)
    const kinds = readdirSync(shared).filter((name) => lstatSync(join(shared, name)).isBlockDevice())
    expect(kinds).toEqual([])
    if (readdirSync(shared).includes('suid')) expect(lstatSync(join(shared, 'suid')).mode & 0o6000).toBe(0)
  })
})
