/** examples/sandbox and examples/systemd: the recipes as they are, with a guest. Skipped where their programs are not installed. */

import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'

const root = fileURLToPath(new URL('../../../../', import.meta.url))
const program = join(root, 'apps/cli/bin/nonroot.js')
const isBuilt = existsSync(join(root, 'apps/cli/bundle'))
const works = (command: string, ...args: string[]): boolean => spawnSync(command, args).status === 0

const folder = mkdtempSync(join(tmpdir(), 'nonroot-sandbox-'))
const outside = mkdtempSync(join(tmpdir(), 'nonroot-outside-'))
copyFileSync(join(root, 'guests/hello/hello.elf'), join(folder, 'hello.elf'))
writeFileSync(join(outside, 'secret.img'), new Uint8Array(1 << 20))
afterAll(() => [folder, outside].forEach((one) => rmSync(one, { recursive: true })))

const run = (script: string, args: readonly string[], env: NodeJS.ProcessEnv = {}) => {
  const { status, stdout, stderr } = spawnSync(join(root, 'examples/sandbox', script), [folder, ...args], {
    env: { ...process.env, NONROOT_TREE: root, NONROOT: `${process.execPath} ${program}`, NONROOT_JS: program, NODE: process.execPath, ...env },
    encoding: 'utf8',
  })
  return { status, out: stdout, err: stderr }
}
const guest = ['run', '--memory', '8M', '--kernel', join(folder, 'hello.elf')]

describe.skipIf(!isBuilt).each([
  { script: 'bubblewrap.sh', isThere: works('bwrap', '--ro-bind', '/', '/', '--unshare-all', 'true'), refused: /no such file/i },
  { script: 'permission.sh', isThere: true, refused: /permission|access/i },
])('$script', { timeout: 120_000 }, ({ script, isThere, refused }) => {
  it.skipIf(!isThere)('runs a guest', () => {
    expect(run(script, [...guest, '--trace', join(folder, 'trace.json')])).toEqual({ status: 33, out: 'hello\n', err: '' })
    expect(existsSync(join(folder, 'trace.json'))).toBe(true)
  })

  it.skipIf(!isThere).each([
    { what: 'reads', args: ['--disk', join(outside, 'secret.img')] },
    { what: 'writes', args: ['--trace', join(outside, 'trace.json')] },
  ])('$what no file outside of its folder', ({ args }) => {
    const { status, err } = run(script, [...guest, ...args])
    expect([status, err]).toEqual([3, expect.stringMatching(refused)])
    expect(existsSync(join(outside, 'trace.json'))).toBe(false)
  })

  it.skipIf(!isThere || script !== 'bubblewrap.sh')('has no network, no home folders and no other processes', () => {
    const look = "ls /home /root; grep -c : /proc/net/dev; ls -d /proc/[0-9]* | wc -l"
    const { out } = run(script, ['-c', look], { NONROOT: 'sh' })
    const [homes, ...rest] = [out.split('\n').slice(0, -3), ...out.trimEnd().split('\n').slice(-2)]
    expect([homes, rest[0]]).toEqual([['/home:', '', '/root:'], '1'])
    expect(Number(rest[1])).toBeLessThan(8)
  })
})

describe.skipIf(!works('systemd-analyze', '--version'))('nonroot@.service', () => {
  const unit = join(root, 'examples/systemd/nonroot@.service')
  it('is understood, and leaves little', () => {
    const verified = spawnSync('systemd-analyze', ['verify', '--man=no', unit], { encoding: 'utf8' })
    expect([verified.status, verified.stderr.split('\n').filter((line) => line.includes('nonroot@'))]).toEqual([0, []])
    // 0 is nothing, 100 is all that a service may do.
    const judged = spawnSync('systemd-analyze', ['security', '--offline=true', '--threshold=20', unit], { encoding: 'utf8' })
    expect(judged.status, judged.stdout + judged.stderr).toBe(0)
  })
})
