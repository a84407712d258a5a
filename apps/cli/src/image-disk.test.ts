/** `nonroot image disk`, as a user has it: judged by e2fsprogs and tar where they are installed. */

import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, linkSync, mkdirSync, mkdtempSync, rmSync, statSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createNodeBackends } from '@nonroot/host-node'
import { diskParts } from '@nonroot/image'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cli, stackTrace } from './testing/cli.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-image-disk-'))
const at = (name: string): string => join(folder, name)
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const has = (program: string, version: string): boolean => spawnSync(program, [version]).status === 0
const hasTools = has('e2fsck', '-V') && has('tar', '--version')

beforeAll(() => {
  mkdirSync(at('root/etc'), { recursive: true, mode: 0o755 })
  writeFileSync(at('root/etc/motd'), 'welcome\n', { mode: 0o640 })
  linkSync(at('root/etc/motd'), at('root/etc/issue'))
  symlinkSync('etc/motd', at('root/link'))
})

const fsck = (file: string) => spawnSync('e2fsck', ['-fn', file], { encoding: 'utf8' }).status
const cat = (file: string, path: string) =>
  execFileSync('debugfs', ['-R', `cat ${path}`, file], { encoding: 'utf8', stdio: 'pipe' })

/** As a raw file, through the back end that a VM has. */
async function asRaw(file: string): Promise<string> {
  const disk = await createNodeBackends({ block: diskParts }).open('block', { image: file, readOnly: true })
  const bytes = new Uint8Array(disk.size)
  await disk.read(0, bytes)
  await disk.close()
  writeFileSync(at('raw'), bytes)
  return at('raw')
}

describe.skipIf(!hasTools)('image disk', () => {
  it('of a folder, raw and sparse', async () => {
    const { status, out } = await cli('image', 'disk', '--from', at('root'), '--size', '64M', at('a.ext4'))
    expect([status, out]).toEqual([
      0,
      expect.stringMatching(/a\.ext4: 64 MiB, \d+ files, \d+ % used, UUID [\da-f-]{36}\n/),
    ])
    const { size, blocks } = statSync(at('a.ext4'))
    expect(size).toBe(64 << 20)
    expect(blocks * 512).toBeLessThan(4 << 20)
    expect(fsck(at('a.ext4'))).toBe(0)
    expect(cat(at('a.ext4'), '/etc/issue')).toBe('welcome\n')
    const stat = execFileSync('debugfs', ['-R', 'stat /etc/motd', at('a.ext4')], { encoding: 'utf8', stdio: 'pipe' })
    expect(stat).toMatch(/Mode: {2}0640[^]*Links: 2/)
    expect(existsSync(at('a.ext4.part'))).toBe(false)
  })

  it('has no system to boot, and run says so', async () => {
    await cli('image', 'disk', '--from', at('root'), '--size', '64M', at('data.ext4'))
    const { status, err } = await cli('run', '--disk', at('data.ext4'))
    expect([status, err]).toEqual([2, expect.stringMatching(/data\.ext4 has no system to boot: it has no \/sbin\/init\n {2}run a command in it/)])
  })

  it.each(['tar', 'tar.gz', 'tar.xz', 'tar.zst'])('of a .%s, as qcow2', async (ending) => {
    const compress = ending === 'tar' ? [] : ['-a']
    const packed = spawnSync('tar', ['-C', at('root'), ...compress, '-cf', at(`b.${ending}`), '.'])
    if (packed.status !== 0) return // its compressor is not installed
    const args = ['--from', at(`b.${ending}`), '--size', '16 MiB', at(`${ending}.qcow2`), '--json']
    const { status, out } = await cli('image', 'disk', ...args)
    expect([status, JSON.parse(out)]).toEqual([0, expect.objectContaining({ size: 16 << 20 })])
    expect(statSync(at(`${ending}.qcow2`)).size).toBeLessThan(4 << 20)
    const raw = await asRaw(at(`${ending}.qcow2`))
    expect([fsck(raw), cat(raw, '/etc/issue')]).toEqual([0, 'welcome\n'])
  })
})

describe('image disk refuses', () => {
  it.each([
    { name: 'no such folder', from: 'none', size: '1 GiB', says: /none: there is no such file or folder/ },
    { name: 'what is no archive', from: 'root/etc/motd', size: '1 GiB', says: /motd: tar header is end of file/ },
    { name: 'a size it does not know', from: 'root', size: '2 GB', says: /"GB" is not a unit of size/ },
    { name: 'no size', from: 'root', size: '0', says: /--size: no size at all/ },
    { name: 'a disk too small for anything', from: 'root', size: '1 KiB', says: /too small for a file system/ },
    {
      name: 'a disk too small for this',
      from: 'large',
      size: '1 MiB',
      says: /do not fit any more\n {2}give a larger size/,
    },
  ])('$name', async ({ from, size, says }) => {
    mkdirSync(at('large'), { recursive: true })
    writeFileSync(at('large/file'), new Uint8Array(2 << 20).fill(1))
    const { status, err } = await cli('image', 'disk', '--from', at(from), '--size', size, at('c.ext4'))
    expect(status).toBeGreaterThan(1)
    expect(err).toMatch(says)
    expect(err).not.toMatch(stackTrace)
    expect([existsSync(at('c.ext4')), existsSync(at('c.ext4.part'))]).toEqual([false, false])
  })

  it('to write over a file', async () => {
    writeFileSync(at('mine.ext4'), 'mine')
    const { status, err } = await cli('image', 'disk', '--from', at('root'), '--size', '16M', at('mine.ext4'))
    expect([status, err]).toEqual([3, expect.stringContaining('mine.ext4: there is such a file\n  remove it')])
  })
})
