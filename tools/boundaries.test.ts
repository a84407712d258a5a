/** A planted import against the rules fails the lint. */

import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ESLint } from 'eslint'
import { beforeAll, describe, expect, it } from 'vitest'
import { command, root } from './workspace.ts'

const X86_FOLDERS = JSON.parse(readFileSync(join(root, 'tools/x86-folders.json'), 'utf8')) as Record<string, string[]>

const cases = [
  { file: 'packages/mmu/src/planted.ts', code: `import '@nonroot/x86'`, why: 'a strategy imports the processor' },
  { file: 'packages/mmu/src/planted.ts', code: `import '@nonroot/io-emulated'`, why: 'a strategy imports a strategy' },
  { file: 'packages/network/src/planted.ts', code: `import '@nonroot/io-virtio'`, why: 'networks import cards' },
  {
    file: 'packages/cpu-vmx/src/planted.ts',
    code: `import '@nonroot/mmu'`,
    why: 'a CPU mode imports a paging strategy',
  },
  { file: 'packages/cpu-translate/src/planted.ts', code: `import '@nonroot/cpu-vmx'`, why: 'a CPU mode imports a CPU mode' },
  { file: 'packages/vcpu/src/planted.ts', code: `import '@nonroot/cpu-vmx'`, why: 'what modes share imports a mode' },
  {
    file: 'packages/contracts/src/planted.ts',
    code: `import '@nonroot/testkit'`,
    why: 'contracts import something of ours',
  },
  { file: 'packages/hypervisor/src/planted.ts', code: `import '@nonroot/mmu'`, why: 'the kernel knows a strategy' },
  { file: 'packages/hypervisor/src/planted.ts', code: `import 'node:fs'`, why: 'the kernel imports node:*' },
  { file: 'packages/mmu/src/planted.ts', code: `import 'node:fs'`, why: 'a strategy imports node:*' },
  { file: 'packages/mmu/src/planted.ts', code: `import 'inversify'`, why: 'a strategy knows the container' },
  { file: 'packages/contracts/src/planted.ts', code: `import 'inversify'`, why: 'contracts know the container' },
  { file: 'packages/x86/src/planted.ts', code: `import '@nonroot/testkit'`, why: 'shipped code imports the testkit' },
  { file: 'packages/mmu/src/planted.ts', code: `import '@nonroot/contracts/dist/clock.js'`, why: 'a deep import' },
  { file: 'packages/x86/src/state/planted.ts', code: `import '../paging/walk.ts'`, why: 'facts import behaviour' },
  {
    file: 'packages/x86/src/paging/tlb/planted.ts',
    code: `import type { X } from '../../events/gate.ts'`,
    why: 'paging knows events',
  },
  {
    file: 'packages/x86/src/interpreter/planted.ts',
    code: `import '../compiler/region.ts'`,
    why: 'a tier knows the other',
  },
  {
    file: 'packages/x86/src/compiler/planted.ts',
    code: `import '../interpreter/handlers.ts'`,
    why: 'a tier knows the other',
  },
  { file: 'packages/x86/src/code/planted.ts', code: `import '../processor.ts'`, why: 'a folder knows the processor' },
  { file: 'packages/x86/src/code/planted.ts', code: `import 'node:fs'`, why: 'the processor imports node:*' },
  {
    file: 'packages/contracts/src/roles/planted.ts',
    code: `import type { VcpuState } from '../x86/vcpu-state.ts'`,
    why: 'a neutral contract names an architecture',
  },
]
const allowed = [
  { file: 'packages/x86/src/paging/tlb/planted.ts', code: `import '../../state/core.ts'; import '../walk.ts'` },
  { file: 'packages/x86/src/processor.ts', code: `import './compiler/region.ts'` },
  { file: 'packages/x86/src/state/planted.test.ts', code: `import '../processor.ts'` },
  { file: 'packages/mmu/src/planted.ts', code: `import '@nonroot/contracts'` },
  { file: 'packages/io-virtio/src/planted.ts', code: `import '@nonroot/network/options'` },
  { file: 'packages/mmu/src/planted.test.ts', code: `import '@nonroot/testkit'` },
  { file: 'packages/cpu-vmx/src/planted.ts', code: `import '@nonroot/x86'; import '@nonroot/vcpu'` },
  { file: 'packages/hypervisor/src/planted.ts', code: `import 'inversify'` },
  { file: 'packages/host-node/src/planted.ts', code: `import 'node:fs'` },
  { file: 'apps/cli/src/planted.ts', code: `import '@nonroot/hypervisor'` },
]

describe('module boundaries', () => {
  let eslint: ESLint
  beforeAll(async () => {
    // The rule says nothing at all while no project graph is cached.
    expect((await command('nx', ['show', 'projects'])).status).toBe(0)
    eslint = new ESLint({ cwd: root })
  })
  const errors = async (file: string, code: string): Promise<string[]> => {
    const results = await eslint.lintText(`${code}\n`, { filePath: join(root, file) })
    return results.flatMap((result) => result.messages.map((message) => message.message))
  }

  it.each(cases)('refuse: $why ($file: $code)', async ({ file, code }) => {
    expect(await errors(file, code)).toHaveLength(1)
  })
  it.each(allowed)('allow $file: $code', async ({ file, code }) => {
    expect(await errors(file, code)).toEqual([])
  })
})

describe('import circles', () => {
  const lint = async (files: Readonly<Record<string, string>>) => {
    const folder = mkdtempSync(join(tmpdir(), 'nonroot-circle-'))
    try {
      for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text)
      return await command('oxlint', ['-c', join(root, '.oxlintrc.json'), folder])
    } finally {
      rmSync(folder, { recursive: true })
    }
  }
  const b = `import type { A } from './a.ts'\nexport interface B {\n  readonly a: A\n}\n`

  it('of types alone are refused', async () => {
    const a = `import type { B } from './b.ts'\nexport interface A {\n  readonly b: B\n}\n`
    const { status, out } = await lint({ 'a.ts': a, 'b.ts': b })
    expect(out).toContain('no-cycle')
    expect(status).not.toBe(0)
  })
  it('are not seen where there are none', async () => {
    expect((await lint({ 'a.ts': 'export type A = number\n', 'b.ts': b })).status).toBe(0)
  })
})

describe('folders of the processor', () => {
  it('are all in the table, which has no circle', () => {
    const folders = readdirSync(join(root, 'packages/x86/src'), { withFileTypes: true })
      .filter((entry) => entry.isDirectory() && !['report', 'testing'].includes(entry.name))
      .map(({ name }) => name)
    const ladder = Object.keys(X86_FOLDERS)
    expect(ladder.toSorted()).toEqual(folders.toSorted())
    for (const [folder, mayImport] of Object.entries(X86_FOLDERS))
      for (const other of mayImport)
        expect(ladder.indexOf(other), `${folder} imports ${other}`).toBeLessThan(ladder.indexOf(folder))
  })
  it('are in the README as the lint has them', () => {
    const readme = readFileSync(join(root, 'packages/x86/README.md'), 'utf8')
    const table = [...readme.matchAll(/^\| `(\w+)\/` +\|.*\| (.*?) +\|$/gm)].map(([, folder, mayImport]) => [
      folder!,
      mayImport!,
    ])
    expect(table).toEqual(
      Object.entries(X86_FOLDERS).map(([folder, mayImport]) => [folder, mayImport.join(', ') || '—']),
    )
  })
})
