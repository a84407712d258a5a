/** Third parties: our tarballs and a stranger's in an empty folder, and a device package as `new device` writes it. */

import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { command, packages, root } from './workspace.ts'
import type { WorkspacePackage } from './workspace.ts'

const STACK = `apiVersion: nonroot/v1
extends: nonroot/stacks/kvm-like.yaml
devices:
  - { kind: acme-sensor, use: acme-sensor, rate: 10 }
`

/** A dependency as npm would find it from a package's folder. */
function installed(name: string, from: string): string | undefined {
  for (let folder = from; folder !== '/'; folder = join(folder, '..')) {
    const found = join(folder, 'node_modules', name)
    if (existsSync(join(found, 'package.json'))) return realpathSync(found)
  }
  return undefined
}

/** All that the packages need of others, with what that needs: packed from what is installed, so that no registry is asked. */
function closure(starts: readonly WorkspacePackage[]): Map<string, string> {
  const found = new Map<string, string>()
  const visit = (folder: string): void => {
    const { dependencies = {} } = JSON.parse(
      readFileSync(join(folder, 'package.json'), 'utf8'),
    ) as WorkspacePackage['manifest']
    for (const name of Object.keys(dependencies)) {
      if (found.has(name) || name.startsWith('@nonroot/')) continue
      const at = installed(name, folder)
      expect(at, `${name}, needed by ${folder}`).toBeDefined()
      found.set(name, at!)
      visit(at!)
    }
  }
  for (const start of starts) visit(start.folder)
  return found
}

describe('a device of another’s making', () => {
  let folder: string
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nonroot-empty-'))
    mkdirSync(join(folder, 'tarballs'))
    mkdirSync(join(folder, 'project'))
  })
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  const pack = async (folders: readonly string[]): Promise<void> => {
    const args = ['pack', '--loglevel=error', '--ignore-scripts', '--pack-destination', join(folder, 'tarballs')]
    const { status, err } = await command('npm', [...args, ...folders], folder)
    expect(status, err).toBe(0)
  }

  /** As it was published: `npm pack` would hold it to its authors' own rules (devEngines). */
  const repack = async (from: string, index: number): Promise<void> => {
    const staging = join(folder, 'staging', String(index))
    cpSync(from, join(staging, 'package'), {
      recursive: true,
      filter: (path) => !path.slice(from.length).includes('node_modules'),
    })
    const { status, err } = await command(
      'tar',
      ['-czf', join(folder, `tarballs/other-${index}.tgz`), 'package'],
      staging,
    )
    expect(status, from + err).toBe(0)
  }

  it('is packed, installed with our tarballs into an empty folder, named by a stack, and composed', async () => {
    // As its author would: a folder with the published packages beside it, built there.
    const acme = join(folder, 'acme-sensor')
    cpSync(join(root, 'examples/acme-sensor'), acme, {
      recursive: true,
      filter: (path) => !/node_modules|dist/.test(path),
    })
    symlinkSync(join(root, 'node_modules'), join(acme, 'node_modules'))
    const built = await command('tsc', ['-p', '.'], acme)
    expect(built.status, built.out).toBe(0)

    const ours = packages()
    const others = [...closure(ours).values()]
    await pack([...ours.map((one) => one.folder), acme])
    await Promise.all(others.map((other, index) => repack(other, index)))

    const project = join(folder, 'project')
    writeFileSync(join(project, 'package.json'), '{ "name": "empty", "private": true }')
    const tarballs = readdirSync(join(folder, 'tarballs')).map((name) => join('../tarballs', name))
    const install = [
      'install',
      '--offline',
      '--omit=optional',
      '--omit=dev',
      '--ignore-scripts',
      '--no-audit',
      '--no-fund',
      ...tarballs,
    ]
    const done = await command('npm', install, project)
    expect(done.status, done.out + done.err).toBe(0)
    expect(existsSync(join(project, 'node_modules/@nonroot/contracts/dist/index.js'))).toBe(true)

    writeFileSync(join(project, 'stack.yaml'), STACK)
    const shown = await command('npx', ['--offline', 'nonroot', 'stack', 'show', '--json', 'stack.yaml'], project)
    expect(shown.status, shown.out + shown.err).toBe(0)
    const view = JSON.parse(shown.out) as { devices: unknown[]; layers: { package: string }[] }
    expect(view.devices).toMatchObject([{ name: 'acme-sensor0', package: 'acme-sensor', options: { rate: 10 } }])
    expect(view.layers.map((layer) => layer.package)).toContain('@nonroot/mmu')

    // The driver's side of virtio and its suites, out of the tarballs.
    const virtio = ['--offline', 'nonroot', 'new', 'device', 'acme-cipher', '--virtio', '--json']
    expect((await command('npx', virtio, project)).status).toBe(0)
    const tested = await command('node', ['--test', 'src/**/*.test.ts'], join(project, 'acme-cipher'))
    expect(tested.status, tested.out + tested.err).toBe(0)
    expect(tested.out).toMatch(/pass \d{2}/)
  })

  it.each([
    { module: 'node16', moduleResolution: 'node16' },
    { module: 'esnext', moduleResolution: 'bundler' },
  ])('the embedding example compiles without the DOM: $moduleResolution', async (how) => {
    const project = join(folder, 'project')
    cpSync(join(root, 'examples/embed'), project, { recursive: true, filter: (path) => !path.includes('node_modules') })
    const given = JSON.parse(readFileSync(join(root, 'examples/embed/tsconfig.json'), 'utf8')) as { compilerOptions: object }
    const compilerOptions = { ...given.compilerOptions, ...how, typeRoots: [join(root, 'node_modules/@types')] }
    writeFileSync(join(project, 'tsconfig.json'), JSON.stringify({ compilerOptions, include: ['src'] }))
    const { status, out } = await command('tsc', ['-p', '.'], project)
    expect(status, out).toBe(0)
  })

  it('the embedding example runs', async () => {
    const project = join(folder, 'project')
    const run = (...args: string[]) => command('node', args, project, { NODE_OPTIONS: '' })
    const ran = await run('src/guest.ts', join(root, 'guests/hello/hello.elf'))
    expect(ran).toEqual({ status: 0, out: 'hello\n{"state":"exited","status":33}\n', err: '' })
    const none = await run('src/guest.ts', 'nope.elf')
    expect(none).toMatchObject({ status: 3, err: expect.stringContaining('cannot read the kernel') as string })
    if (!process.env['NONROOT_DEBIAN']) return
    const debian = await run('src/main.ts')
    expect(debian.status, debian.err).toBe(0)
    expect(debian.out).toMatch(/^Linux 6\.\S+ x86_64 3\n$/)
  })
})

describe('a scaffolded device package', () => {
  const folder = join(root, 'apps/cli/.tmp', `scaffold-${process.pid}`)
  afterAll(() => rmSync(folder, { recursive: true, force: true }))

  it.each([
    { name: 'acme-thing', flags: [] },
    { name: '@acme/thing', flags: [] },
    { name: 'acme-cipher', flags: ['--virtio'] },
  ])('$name $flags builds and passes its test as generated', async ({ name, flags }) => {
    const at = join(folder, name.replace('/', '-'))
    const made = await command('nonroot', ['new', 'device', name, ...flags, '--dir', at, '--json'])
    expect(made.status, made.out + made.err).toBe(0)
    for (const script of ['build', 'test']) {
      const { status, out, err } = await command('npm', ['run', script], at)
      expect(status, out + err).toBe(0)
    }
    const format = await command(
      'prettier',
      ['--check', '--config', join(root, '.prettierrc.json'), join(at, 'src')],
      at,
    )
    expect(format.status, format.err).toBe(0)
  })

  it('refuses to write over what is there', async () => {
    const { status, err } = await command('nonroot', ['new', 'device', 'x', '--dir', root])
    expect({ status, said: err.includes('not empty') }).toEqual({ status: 2, said: true })
  })
})
