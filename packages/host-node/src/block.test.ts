/** Disks as a configuration names them. Formats are stand-ins: the real ones are the image package's. */

import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { BlockBackend, BlockFormat, BlockRequest, ByteStore } from '@nonroot/contracts'
import { afterAll, beforeEach, describe, expect, it } from 'vitest'
import { openBlock } from './block.ts'
import { openFileStore } from './block-file.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-blocks-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const at = (name: string): string => join(folder, name)

const diskOver = (
  store: Pick<ByteStore, 'read' | 'write' | 'flush' | 'close' | 'size'>,
  readOnly: boolean,
): BlockBackend => ({
  size: store.size,
  sectorSize: 512,
  readOnly,
  read: store.read,
  write: store.write,
  flush: store.flush,
  close: store.close,
})

let backing: { file: string; format?: string } | undefined
let opened: string[]
const fake: BlockFormat = {
  name: 'fake',
  detects: (head) => head[0] === 0xfa,
  async open(store, { name, readOnly, openBacking }) {
    opened.push(`${name.slice(folder.length + 1)}${readOnly ? ' read-only' : ''}`)
    if (backing) await openBacking(backing.file, backing.format)
    return diskOver(store, readOnly)
  },
}
const parts = {
  formats: [fake],
  overlay: (base: BlockBackend): BlockBackend => ({ ...base, readOnly: false, write: async () => {} }),
  memory: (size: number): BlockBackend =>
    diskOver(
      { size, read: async () => {}, write: async () => {}, flush: async () => {}, close: async () => {} },
      false,
    ),
}
const open = (request: BlockRequest) => openBlock(request, (name) => join(folder, name), parts)

beforeEach(() => {
  backing = undefined
  opened = []
  mkdirSync(at('below'), { recursive: true })
  for (const name of ['raw.img', 'a.fake', 'b.fake', 'below/c.fake']) writeFileSync(at(name), new Uint8Array(1024))
  writeFileSync(at('looks.img'), new Uint8Array(1024).fill(0xfa))
})

describe('disks by name', () => {
  it('has the format that its name ends in, or that is said', async () => {
    await (await open({ image: 'raw.img' })).close()
    await (await open({ image: 'a.fake' })).close()
    await (await open({ image: 'raw.img', format: 'fake', readOnly: true })).close()
    await (await open({ image: 'a.fake', format: 'raw' })).close()
    expect(opened).toEqual(['a.fake', 'raw.img read-only'])
    await expect(open({ image: 'raw.img', format: 'vdi' })).rejects.toThrow('disk format "vdi" is not known')
  })

  it('a raw disk that begins like another format is refused, unless it is said to be raw: a guest may have written that', async () => {
    await expect(open({ image: 'looks.img' })).rejects.toThrow('begins like fake')
    await (await open({ image: 'looks.img', format: 'raw' })).close()
  })

  it('temporary: nothing reaches the file', async () => {
    const disk = await open({ image: 'raw.img', temporary: true })
    expect(disk.readOnly).toBe(false)
    await disk.write(0, new Uint8Array(512).fill(1))
    await disk.close()
    expect(readFileSync(at('raw.img'))[0]).toBe(0)
    await open({ image: 'a.fake', temporary: true })
    expect(opened).toEqual(['a.fake read-only'])
  })

  it('in memory', async () => {
    expect((await open({ image: 'memory://64KiB' })).size).toBe(65536)
    await expect(open({ image: 'memory://lots' })).rejects.toThrow('memory://lots')
    await expect(openBlock({ image: 'memory://1MiB' }, (name) => name)).rejects.toThrow('needs the disk formats')
  })

  it('backing files lie beside the image, unless it is trusted', async () => {
    backing = { file: 'below/c.fake', format: 'raw' }
    await open({ image: 'a.fake' })
    for (const file of ['../outside.img', '/etc/hostname', 'below/../../x']) {
      backing = { file, format: 'raw' }
      await expect(open({ image: 'a.fake' })).rejects.toThrow('is in another folder')
    }
    writeFileSync(join(folder, '..', 'nonroot-outside.img'), new Uint8Array(512))
    backing = { file: '../nonroot-outside.img', format: 'raw' }
    await (await open({ image: 'a.fake', backingFiles: 'anywhere' })).close()
    rmSync(join(folder, '..', 'nonroot-outside.img'))
  })

  it('an image over itself is refused', async () => {
    backing = { file: 'a.fake' }
    await expect(open({ image: 'a.fake' })).rejects.toThrow('more than 16 images')
  })
})

describe('a file as a store', () => {
  it('grows, and is zeros beyond its end', async () => {
    const store = await openFileStore(at('raw.img'))
    await store.write(2000, new Uint8Array(100).fill(3))
    expect(store.size).toBe(2100)
    const bytes = new Uint8Array(300).fill(9)
    await store.read(1950, bytes)
    expect([bytes[0], bytes[50], bytes[149], bytes[150], bytes[299]]).toEqual([0, 3, 3, 0, 0])
    await store.flush()
    await store.close()
  })
})
