/** What the documents say is so: paths exist, commands are the ones in use, shipped stacks are right. */

import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { command, packages, root } from './workspace.ts'

const read = (path: string): string => readFileSync(join(root, path), 'utf8')

describe('docs', () => {
  it.each(['README.md', 'CONTRIBUTING.md', 'docs/ARCHITECTURE.md'])('%s names paths that exist', (file) => {
    const named = [
      ...read(file).matchAll(/`((?:packages|apps|docs|stacks|examples|tools|guests|\.ci|\.changeset)\/[\w./@*-]*)`/g),
    ].map((match) => match[1]!)
    expect(named.length).toBeGreaterThan(0)
    expect(named.filter((path) => !path.includes('*') && !existsSync(join(root, path)))).toEqual([])
  })

  it.each(['README.md', 'CONTRIBUTING.md', 'docs/ARCHITECTURE.md'])('%s links to files that exist', (file) => {
    const links = [...read(file).matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map((match) => match[1]!)
    expect(links.filter((link) => !existsSync(join(root, file, '..', link)))).toEqual([])
  })

  it('docs/ARCHITECTURE.md lists every package and what it may import as the lint has it', () => {
    const text = read('docs/ARCHITECTURE.md')
    const folders = packages().map(({ folder }) => folder.slice(root.length))
    expect(folders.filter((folder) => !text.includes(`\`${folder}\``))).toEqual([])
  })

  it('docs/adr numbers each decision once, with context, decision and cost', () => {
    const files = readdirSync(join(root, 'docs/adr')).sort()
    expect(files.map((file) => Number(file.slice(0, 4)))).toEqual(files.map((_, index) => index + 1))
    for (const file of files) {
      for (const heading of ['## Context', '## Decision', '## Cost'])
        expect(read(`docs/adr/${file}`), file).toContain(heading)
    }
  })

  it('.ci/run runs the README’s commands', () => {
    const commands = /```sh\n([\s\S]*?)```/.exec(read('README.md'))![1]!.trim().split('\n')
    expect(commands).toHaveLength(2)
    expect(read('.ci/run')).toContain('npm ci')
    expect(read('.ci/run')).toContain('npm test')
  })

  it('every package has a README and a licence', () => {
    const lacking = packages().filter(
      ({ folder }) => !['README.md', 'LICENSE'].every((file) => existsSync(join(folder, file))),
    )
    expect(lacking.map(({ name }) => name)).toEqual([])
  })
})

describe('shipped stacks', () => {
  const stacks = readdirSync(join(root, 'stacks')).filter((file) => file.endsWith('.yaml'))

  it.each(stacks)('%s is right, and tells editors its schema', async (file) => {
    const { status, out, err } = await command('nonroot', ['config', 'check', join('stacks', file)])
    expect(status, out + err).toBe(0)
    expect(read(join('stacks', file)).split('\n')[0]).toBe('# yaml-language-server: $schema=./stack.schema.json')
  })

  it('stacks/stack.schema.json is what `nonroot config schema` prints', async () => {
    expect(JSON.parse(read('stacks/stack.schema.json'))).toEqual(
      JSON.parse((await command('nonroot', ['config', 'schema'])).out),
    )
  })

  it('differ in exactly the layers in which their files differ', async () => {
    const show = async (file: string) => {
      const { out } = await command('nonroot', ['stack', 'show', '--json', `stacks/${file}`])
      return (JSON.parse(out) as { layers: { place: string }[] }).layers
    }
    const base = await show('kvm-like.yaml')
    const changed = async (file: string): Promise<string[]> =>
      (await show(file))
        .filter((layer, index) => JSON.stringify(layer) !== JSON.stringify(base[index]))
        .map((layer) => layer.place)
    expect(await changed('kvm-like-shadow.yaml')).toEqual(['paging'])
    expect(await changed('full-virtualisation.yaml')).toEqual(['cpu', 'paging'])
    expect(await changed('bare-pc.yaml')).toEqual(['abi'])
  })
})
