/** What would be published: publint, types that resolve (attw), no tests, a licence, and a release that counts up. */

import { cpSync, existsSync, globSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { checkPackage, createPackageFromTarballData } from '@arethetypeswrong/core'
import { publint } from 'publint'
import { formatMessage } from 'publint/utils'
import ts from 'typescript'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { command, packages, root } from './workspace.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-pack-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

interface Packed {
  readonly name: string
  readonly filename: string
  readonly files: readonly { readonly path: string }[]
}
let allPacked: readonly Packed[]
// What packing does first, the command's bundle, is made already; other tests use it meanwhile.
beforeAll(async () => {
  const args = ['pack', '--json', '--ignore-scripts', '--pack-destination', folder]
  const { status, out, err } = await command('npm', [...args, ...packages().map((one) => one.folder)], folder)
  expect(status, err).toBe(0)
  allPacked = Object.values(JSON.parse(out) as Packed[] | Record<string, Packed>)
})

describe.each(packages())('$name', ({ name, folder: packageFolder, manifest }) => {
  it('packs what it needs and no tests, passes publint and attw', async () => {
    const packed = allPacked.find((one) => one.name === name)!
    const paths = packed.files.map((file) => file.path)
    expect(paths).toEqual(
      expect.arrayContaining(['package.json', 'LICENSE', 'README.md', 'dist/index.js', 'dist/index.d.ts']),
    )
    expect(paths.filter((path) => /\.test\.|(^|\/)(testing|fixtures)\/|tsbuildinfo|vitest/.test(path))).toEqual([])
    if (manifest['bin']) expect(paths).toEqual(expect.arrayContaining(['bin/nonroot.js', 'bundle/start.js', 'stacks/kvm-like.yaml']))

    const tarball = readFileSync(join(folder, packed.filename))
    const { messages, pkg } = await publint({ strict: true, pack: { tarball: new Uint8Array(tarball).buffer } })
    expect(messages.map((message) => formatMessage(message, pkg))).toEqual([])

    const types = await checkPackage(createPackageFromTarballData(new Uint8Array(tarball)))
    // ESM only: CommonJS gets it by require(esm), which attw calls a problem of its own kind.
    const problems = (types.types ? types.problems : []).filter(
      (problem) => problem.kind !== 'CJSResolvesToESM' && problem.kind !== 'NoResolution',
    )
    expect(types.types && problems).toEqual([])
  })

  it('depends on published packages of ours by their version', () => {
    const versions = new Map(packages().map((one) => [one.name, String(one.manifest['version'])]))
    for (const [dependency, range] of Object.entries(manifest.dependencies ?? {})) {
      if (dependency.startsWith('@nonroot/') && versions.has(dependency))
        expect(range, `${name} -> ${dependency}`).toBe(`^${versions.get(dependency)}`)
    }
    expect(manifest['private']).toBeUndefined()
  })

  it('depends on what it imports, and on nothing else', () => {
    const sources = globSync('src/**/*.ts', { cwd: packageFolder, exclude: (path) => /\.test\.|\/testing(\/|$)/.test(path) })
    const imported = new Set<string>()
    for (const source of sources) {
      const text = readFileSync(join(packageFolder, source), 'utf8')
      for (const { fileName } of ts.preProcessFile(text).importedFiles) {
        const [, from] = /^((?:@[^/]+\/)?[^./@][^/:]*)(?:\/|$)/.exec(fileName) ?? []
        if (from !== undefined) imported.add(from)
      }
    }
    // What an imported package, or one that it depends on, asks of its users is used, too.
    const below = [...imported].flatMap((one) => [one, ...Object.keys(manifestOf(one)['dependencies'] ?? {})])
    const peers = below.flatMap((one) => Object.keys(manifestOf(one)['peerDependencies'] ?? {}))
    // The command's bundle has all plugins that it ships (tools/bundle.js), and leaves openpgp beside it.
    const isBundled = (dependency: string) => name === 'nonroot' && (dependency.startsWith('@nonroot/') || dependency === 'openpgp')
    const unused = Object.keys(manifest.dependencies ?? {}).filter((dependency) => ![...imported, ...peers].includes(dependency) && !isBundled(dependency))
    const missing = [...imported].filter((one) => one !== name && !Object.hasOwn(manifest.dependencies ?? {}, one))
    expect({ unused, missing }).toEqual({ unused: [], missing: [] })
  })

  it('says what it is, where it lives, where its bugs go, and how it was built', () => {
    const { description, keywords, homepage, bugs, publishConfig } = manifest as Record<string, unknown>
    const path = packageFolder.slice(root.length).replace(/^\//, '')
    expect([description, homepage, bugs, publishConfig]).toEqual([
      ...[expect.stringMatching(/./), `https://github.com/nonroot/nonroot/tree/main/${path}#readme`, 'https://github.com/nonroot/nonroot/issues'],
      { access: 'public', provenance: true },
    ])
    expect((keywords as string[]).length).toBeGreaterThan(1)
  })
})

it('a release by changesets counts up what changed, and only that', async () => {
  const copy = mkdtempSync(join(tmpdir(), 'nonroot-release-'))
  try {
    for (const file of ['package.json', 'package-lock.json', '.changeset', 'tsconfig.base.json'])
      cpSync(join(root, file), join(copy, file), { recursive: true })
    for (const parent of ['packages', 'apps']) {
      for (const name of readdirSync(join(root, parent))) {
        cpSync(join(root, parent, name, 'package.json'), join(copy, parent, name, 'package.json'))
      }
    }
    for (const file of readdirSync(join(copy, '.changeset')))
      if (file.endsWith('.md')) rmSync(join(copy, '.changeset', file))
    symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'))
    writeFileSync(join(copy, '.changeset/try-it.md'), '---\n"@nonroot/mmu": minor\n---\n\nTry a release.\n')
    const git = { GIT_AUTHOR_NAME: 'a', GIT_AUTHOR_EMAIL: 'a@b', GIT_COMMITTER_NAME: 'a', GIT_COMMITTER_EMAIL: 'a@b' }
    for (const args of [
      ['init', '-q', '-b', 'main'],
      ['add', 'package.json', '.changeset', 'packages', 'apps'],
      ['commit', '-q', '-m', 'all'],
    ]) {
      expect((await command('git', args, copy, git)).status).toBe(0)
    }
    const before = readVersion(copy, 'packages/x86')
    const { status, out, err } = await command('changeset', ['version'], copy, git)
    expect(status, out + err).toBe(0)
    expect(readVersion(copy, 'packages/mmu')).toMatch(/^\d+\.\d+\.0$/)
    expect(readVersion(copy, 'packages/mmu')).not.toBe(readVersion(root, 'packages/mmu'))
    expect(readVersion(copy, 'packages/x86')).toBe(before)
    expect(readFileSync(join(copy, 'packages/mmu/CHANGELOG.md'), 'utf8')).toContain('Try a release.')
  } finally {
    rmSync(copy, { recursive: true, force: true })
  }
})

const manifestOf = (name: string): Record<string, object> => {
  const path = join(root, 'node_modules', name, 'package.json')
  return existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as Record<string, object>) : {}
}

const readVersion = (base: string, path: string): string =>
  (JSON.parse(readFileSync(join(base, path, 'package.json'), 'utf8')) as { version: string }).version
