/** A shared folder, and what a guest may try to get out of it. */

import { execFileSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FolderBackend, FolderNode } from '@nonroot/contracts'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { openFolder } from './folder.ts'

const READ = { read: true, write: false }
const WRITE = { read: true, write: true }
const text = (value: string) => new TextEncoder().encode(value)

let top: string
let path: string
let folder: FolderBackend
let root: FolderNode

beforeEach(async () => {
  top = mkdtempSync(join(tmpdir(), 'nonroot-folder-'))
  path = join(top, 'shared')
  mkdirSync(join(path, 'inner'), { recursive: true })
  writeFileSync(join(top, 'secret'), 'secret')
  writeFileSync(join(path, 'file'), 'hello')
  folder = await openFolder(path)
  root = folder.root
})
afterEach(async () => {
  await folder.close()
  rmSync(top, { recursive: true, force: true })
})

async function contents(node: FolderNode): Promise<string> {
  const file = await node.open(READ)
  const bytes = new Uint8Array(100)
  const read = await file.read(0, bytes)
  await file.close()
  return new TextDecoder().decode(bytes.subarray(0, read))
}

describe('a shared folder', () => {
  it('reads, writes, lists, makes, renames and removes', async () => {
    const { node, file } = await root.createFile('new', { ...WRITE, exclusive: true }, 0o640)
    expect(await file.write(3, text('abc'))).toBe(3)
    await file.sync()
    await file.close()
    expect(readFileSync(join(path, 'new'), 'latin1')).toBe('\0\0\0abc')
    expect(await node.attributes()).toMatchObject({ kind: 'file', size: 6, uid: 0, gid: 0, links: 1 })
    expect((await node.attributes()).mode & 0o7777).toBe(0o640)
    await node.change({ mode: 0o600, size: 2, modifiedNs: 981_173_106_000_000_000n })
    expect(await node.attributes()).toMatchObject({ size: 2, modifiedNs: 981_173_106_000_000_000n })
    const inner = await root.find('inner')
    await root.rename('new', inner, 'moved')
    await root.addName('second', node)
    expect((await node.attributes()).links).toBe(2)
    expect((await inner.list()).map(({ name }) => name)).toEqual(['moved'])
    await root.remove('second', 'file')
    await inner.remove('moved', 'file')
    await expect(root.remove('inner', 'file')).rejects.toMatchObject({
      code: expect.stringMatching(/EISDIR|EPERM/) as string,
    })
    await root.remove('inner', 'folder')
    expect((await root.list()).map(({ name, kind }) => `${kind} ${name}`)).toEqual(['file file'])
    expect((await folder.space()).blocks).toBeGreaterThan(0)
  })

  it('keeps a node what it is, whatever becomes of its name', async () => {
    const node = await root.find('file')
    const file = await node.open(READ)
    await root.remove('file', 'file')
    expect((await node.attributes()).links).toBe(0)
    expect(await file.read(0, new Uint8Array(5))).toBe(5)
    await file.close()
  })

  it('refuses to share what is no folder', async () => {
    await expect(openFolder(join(path, 'file'))).rejects.toMatchObject({ code: 'host.file' })
    await expect(openFolder(join(path, 'none'))).rejects.toMatchObject({ code: 'host.file' })
  })

  it('writes nothing when it is read-only', async () => {
    const readOnly = await openFolder(path, true)
    const node = await readOnly.root.find('file')
    const attempts = [
      () => node.open(WRITE),
      () => node.change({ mode: 0 }),
      () => readOnly.root.createFile('x', WRITE, 0o644),
      () => readOnly.root.createFolder('x', 0o755),
      () => readOnly.root.createLink('x', 'y'),
      () => readOnly.root.rename('file', readOnly.root, 'x'),
      () => readOnly.root.remove('file', 'file'),
      () => readOnly.root.addName('x', node),
    ]
    for (const attempt of attempts) await expect(attempt()).rejects.toMatchObject({ code: 'EROFS' })
    expect(await contents(node)).toBe('hello')
    await readOnly.close()
  })
})

describe('no escape', () => {
  it.each(['', '.', '..', '../secret', '/etc/passwd', 'inner/../../secret', 'file/', 'a\0b', `../${'shared'}/file`])(
    'by the name %j',
    async (name) => {
      const attempts = [
        () => root.find(name),
        () => root.createFile(name, WRITE, 0o644),
        () => root.createFolder(name, 0o755),
        () => root.createLink(name, 'x'),
        () => root.remove(name, 'file'),
        () => root.remove(name, 'folder'),
        () => root.rename('file', root, name),
        () => root.rename(name, root, 'x'),
      ]
      for (const attempt of attempts) await expect(attempt()).rejects.toMatchObject({ code: 'EINVAL' })
      const node = await root.find('file')
      await expect(root.addName(name, node)).rejects.toMatchObject({ code: 'EINVAL' })
      await node.release()
    },
  )

  it('by a name that is too long', async () => {
    await expect(root.find('é'.repeat(128))).rejects.toMatchObject({ code: 'ENAMETOOLONG' })
  })

  it.each([
    { what: 'a file outside', target: '../secret' },
    { what: 'an absolute path', target: '/etc/passwd' },
    { what: 'a folder outside', target: '..' },
    { what: 'a way in and out', target: 'inner/../../secret' },
    { what: 'the root of the process', target: '/proc/self/root' },
    { what: 'a descriptor of the process', target: '/proc/self/fd/0' },
    { what: 'itself', target: 'link' },
  ])('by a link to $what', async ({ target }) => {
    const link = await root.createLink('link', target)
    expect([link.kind, await link.target()]).toEqual(['link', target])
    await expect(link.open(READ)).rejects.toMatchObject({ code: 'ELOOP' })
    await expect(link.find('passwd')).rejects.toMatchObject({ code: 'ENOTDIR' })
    await expect(link.find('secret')).rejects.toMatchObject({ code: 'ENOTDIR' })
    await expect(link.list()).rejects.toMatchObject({ code: 'ENOTDIR' })
    await expect(link.createFile('x', WRITE, 0o644)).rejects.toMatchObject({ code: 'ENOTDIR' })
    await expect(link.change({ mode: 0o777 })).rejects.toMatchObject({ code: 'EOPNOTSUPP' })
    await expect(link.change({ size: 0 })).rejects.toMatchObject({ code: 'EOPNOTSUPP' })
    await link.change({ modifiedNs: 0n })
    await expect(root.createFile('link', WRITE, 0o644)).rejects.toMatchObject({ code: 'ELOOP' })
    await expect(root.createFolder('link', 0o755)).rejects.toMatchObject({ code: 'EEXIST' })
    // A second name of a link is a link.
    await root.addName('second', link)
    expect(lstatSync(join(path, 'second')).isSymbolicLink()).toBe(true)
    expect(readFileSync(join(top, 'secret'), 'utf8')).toBe('secret')
    await root.remove('link', 'file')
    expect(existsSync(join(top, 'secret'))).toBe(true)
  })

  it('by a folder that becomes a link after it was found', async () => {
    const inner = await root.find('inner')
    renameSync(join(path, 'inner'), join(path, 'elsewhere'))
    symlinkSync(top, join(path, 'inner'))
    // The node is the folder that was found, not what bears its name now.
    await expect(inner.find('secret')).rejects.toMatchObject({ code: 'ENOENT' })
    const { file } = await inner.createFile('made', WRITE, 0o644)
    await file.close()
    expect([existsSync(join(path, 'elsewhere/made')), existsSync(join(top, 'made'))]).toEqual([true, false])
    await expect((await root.find('inner')).find('secret')).rejects.toMatchObject({ code: 'ENOTDIR' })
  })

  it('by a folder that is moved out while it is held: its parent stays unknown', async () => {
    const inner = await root.find('inner')
    renameSync(join(path, 'inner'), join(top, 'out'))
    await expect(inner.find('..')).rejects.toMatchObject({ code: 'EINVAL' })
  })

  it('by racing a link against lookups', async () => {
    writeFileSync(join(path, 'inner/target'), 'inside')
    mkdirSync(join(top, 'outside'))
    writeFileSync(join(top, 'outside/target'), 'outside')
    let swaps = 0
    const race = (async () => {
      for (; swaps < 200; swaps++) {
        renameSync(join(path, 'inner'), join(path, 'aside'))
        symlinkSync(join(top, 'outside'), join(path, 'inner'))
        await new Promise((resolve) => setImmediate(resolve))
        rmSync(join(path, 'inner'))
        renameSync(join(path, 'aside'), join(path, 'inner'))
        await new Promise((resolve) => setImmediate(resolve))
      }
    })()
    const found = new Set<string>()
    while (swaps < 200) {
      try {
        const inner = await root.find('inner')
        const target = await inner.find('target')
        found.add(await contents(target))
        await target.release()
        await inner.release()
      } catch (error) {
        found.add((error as { code: string }).code)
      }
    }
    await race
    expect(found).not.toContain('outside')
  })

  it("by the host's pipes and devices", async () => {
    execFileSync('mkfifo', [join(path, 'pipe')])
    const pipe = await root.find('pipe')
    expect(pipe.kind).toBe('other')
    await expect(pipe.open(READ)).rejects.toMatchObject({ code: 'EACCES' })
    await expect(root.createFile('pipe', { read: true, write: true }, 0o644)).rejects.toMatchObject({ code: 'EACCES' })
  })

  it('by programs that run with rights of another', async () => {
    const { node, file } = await root.createFile('program', WRITE, 0o6755)
    await node.change({ mode: 0o6755 })
    await file.close()
    const inner = await root.createFolder('setgid', 0o2755)
    await inner.change({ mode: 0o6755 })
    for (const name of ['program', 'setgid']) expect(statSync(join(path, name)).mode & 0o6000).toBe(0)
  })

  it('by second names of files that were exchanged', async () => {
    const node = await root.find('file')
    renameSync(join(path, 'file'), join(path, 'other'))
    symlinkSync('../secret', join(path, 'file'))
    await expect(root.addName('second', node)).rejects.toMatchObject({ code: 'ESTALE' })
    chmodSync(join(path, 'other'), 0o644)
  })
})
