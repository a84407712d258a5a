/** A process that writes to a disk is killed: what it was told to be flushed is in the file. Raw and qcow2, through the back ends that a VM has. */

import { spawn, spawnSync } from 'node:child_process'
import { closeSync, ftruncateSync, mkdtempSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createNodeBackends, openFileStore } from '@nonroot/host-node'
import { createQcow2, diskParts } from '@nonroot/image'
import { afterAll, describe, expect, it } from 'vitest'
import { node } from './testing/cli.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-kill-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const SECTOR = 512
const SECTORS = 64
/** Far apart: each in a cluster of its own. */
const STRIDE = 1 << 16
const SIZE = SECTORS * STRIDE
const hasQemu = spawnSync('qemu-img', ['--version']).status === 0

async function create(name: string): Promise<string> {
  const file = join(folder, name)
  writeFileSync(file, '')
  if (name.endsWith('.qcow2')) {
    const store = await openFileStore(file)
    await createQcow2(store, { size: SIZE })
    await store.close()
  } else {
    const handle = openSync(file, 'r+')
    ftruncateSync(handle, SIZE)
    closeSync(handle)
  }
  return file
}

/** Sector N modulo 64 gets the number N; every eighth time all is flushed, and the number told. */
const WRITER = `
  import { createNodeBackends } from '@nonroot/host-node'
  import { diskParts } from '@nonroot/image'
  const disk = await createNodeBackends({ block: diskParts }).open('block', { image: process.argv[1] })
  for (let number = Number(process.argv[2]) + 1; ; number++) {
    await disk.write((number % ${SECTORS}) * ${STRIDE}, new Uint8Array(new Uint32Array(${SECTOR / 4}).fill(number).buffer))
    if (number % 8) continue
    await disk.flush()
    process.stdout.write(number + '\\n')
  }
`

/** The last number that was flushed. */
function writeAndBeKilled(file: string, from: number, lines: number): Promise<number> {
  const child = spawn(node[0]!, [...node.slice(1), '-e', WRITER, '--', file, String(from)], { cwd: import.meta.dirname, stdio: ['ignore', 'pipe', 'inherit'] })
  let said = ''
  child.stdout.on('data', (chunk: Buffer) => {
    said += chunk.toString()
    if (said.split('\n').length > lines) child.kill('SIGKILL')
  })
  return new Promise((resolve) => child.on('close', () => resolve(Number(said.split('\n').at(-2)))))
}

describe('a writer that is killed', () => {
  it.each(['raw.img', 'disk.qcow2'])(
    'leaves what it flushed: %s',
    async (name) => {
      const file = await create(name)
      let from = 0
      for (const lines of [1, 3, 10, 40]) {
        const flushed = await writeAndBeKilled(file, from, lines)
        expect(flushed).toBeGreaterThan(from)
        const disk = await createNodeBackends({ block: diskParts }).open('block', { image: file, readOnly: true })
        const bytes = new Uint8Array(SECTOR)
        for (let sector = 0; sector < SECTORS; sector++) {
          await disk.read(sector * STRIDE, bytes)
          const found = new Set(new Uint32Array(bytes.buffer))
          const [number = 0] = found
          // The last number up to the flushed one that this sector got.
          const least = flushed - ((((flushed - sector) % SECTORS) + SECTORS) % SECTORS)
          expect([found.size, number >= Math.max(least, 0), number % SECTORS]).toEqual([1, true, number ? sector : 0])
        }
        await disk.close()
        if (hasQemu && name.endsWith('.qcow2')) {
          // 3: clusters that nothing uses, which do no harm.
          const { status, stdout } = spawnSync('qemu-img', ['check', file], { encoding: 'utf8' })
          expect([0, 3], stdout).toContain(status)
        }
        from = flushed
      }
    },
    120_000,
  )
})
