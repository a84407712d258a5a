/** A planted import against the rules fails the lint. */

import { join } from 'node:path'
import { ESLint } from 'eslint'
import { beforeAll, describe, expect, it } from 'vitest'
import { command, root } from './workspace.ts'

const cases = [
  { file: 'packages/mmu/src/planted.ts', code: `import '@nonroot/x86'`, why: 'a strategy imports the processor' },
  { file: 'packages/mmu/src/planted.ts', code: `import '@nonroot/io-emulated'`, why: 'a strategy imports a strategy' },
  {
    file: 'packages/cpu-vmx/src/planted.ts',
    code: `import '@nonroot/mmu'`,
    why: 'a CPU mode imports a paging strategy',
  },
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
]
const allowed = [
  { file: 'packages/mmu/src/planted.ts', code: `import '@nonroot/contracts'` },
  { file: 'packages/mmu/src/planted.test.ts', code: `import '@nonroot/testkit'` },
  { file: 'packages/cpu-vmx/src/planted.ts', code: `import '@nonroot/x86'` },
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
