/** A stack from its file: layers, swaps, extends, overrides, and the commands that show it. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { shippedStackNames } from './host.ts'
import type { StackView } from './stack-view.ts'
import { cli, fixtures, folderWith } from './testing/cli.ts'

const good = join(fixtures, 'good.yaml')
const show = async (file: string, ...set: string[]): Promise<StackView> => {
  const { status, out, err } = await cli('stack', 'show', '--json', file, ...set.flatMap((one) => ['--set', one]))
  expect(status, out + err).toBe(0)
  return JSON.parse(out) as StackView
}
const brief = (view: StackView): string[] => view.layers.map((layer) => `${layer.place} ${layer.strategy}`)

describe('swapping a layer', () => {
  it('is a change of one line, and changes that layer only', async () => {
    const other = join(fixtures, 'shadowing.yaml')
    const [left, right] = [good, other].map((file) => readFileSync(file, 'utf8').split('\n'))
    expect(left!.filter((line, index) => line !== right![index])).toHaveLength(1)

    const [one, two] = [await show(good), await show(other)]
    const changed = one.layers.filter((layer, index) => JSON.stringify(layer) !== JSON.stringify(two.layers[index]))
    expect(changed.map((layer) => layer.place)).toEqual(['paging'])
    expect({ ...two, file: '', layers: [] }).toEqual({ ...one, file: '', layers: [] })
    expect(two.layers.find((layer) => layer.place === 'paging')).toMatchObject({
      strategy: 'shadowing',
      options: { roots: 4 },
    })
  })

  it('is the same by --set', async () => {
    const set = await show(good, 'stack.paging.strategy=shadowing')
    expect(brief(set)).toEqual(brief(await show(join(fixtures, 'shadowing.yaml'))))
  })
})

describe('--set', () => {
  it.each([
    { set: ['machine.memory=1GiB'], at: ['machine', 'memory'], value: 2 ** 30 },
    { set: ['machine.memory=128 MiB'], at: ['machine', 'memory'], value: 128 * 2 ** 20 },
    { set: ['machine.vcpus=4'], at: ['machine', 'vcpus'], value: 4 },
    { set: ['machine.clock=deterministic'], at: ['machine', 'clock'], value: 'deterministic' },
    { set: ['devices[0].rate=5'], at: ['devices', 0, 'options', 'rate'], value: 5 },
    { set: ['devices.0.rate=6'], at: ['devices', 0, 'options', 'rate'], value: 6 },
    { set: ['stack.paging.largePages=false'], at: ['layers', 1, 'options', 'largePages'], value: false },
    { set: ['devices[1]={ kind: counter, rate: 3 }'], at: ['devices', 1, 'name'], value: 'counter1' },
    { set: ['devices=', 'devices[0]={ kind: counter, rate: 3 }'], at: ['devices', 0, 'options', 'rate'], value: 3 },
    { set: ['devices[0]='], at: ['devices', 'length'], value: 0 },
    { set: ['machine='], at: ['machine', 'memory'], value: 512 * 2 ** 20 },
    { set: ['machine.vcpus=2', 'machine.vcpus=3'], at: ['machine', 'vcpus'], value: 3 },
  ])('$set', async ({ set, at, value }) => {
    let found: unknown = await show(good, ...set)
    for (const step of at) found = (found as Record<string | number, unknown>)[step]
    expect(found).toEqual(value)
  })
})

describe('a shipped stack', () => {
  it('is found by its name', async () => {
    // Packages are loaded from source, which takes a busy machine long.
    vi.stubEnv('NONROOT_PLUGIN_TIMEOUT', '100')
    expect(brief(await show('kvm-like-shadow'))).toContain('paging shadow')
    vi.unstubAllEnvs()
  }, 120_000)

  it('that is none is named', async () => {
    const { status, err } = await cli('stack', 'show', 'kvm-liek')
    expect([status, err]).toEqual([2, expect.stringMatching(/there is no stack "kvm-liek"\n {2}name a file .* as kvm-like/)])
  })
})

describe('extends', () => {
  it('changes what the other file says, key by key; paths stay relative to the file that wrote them', async () => {
    const { folder, remove } = await folderWith({
      'mine/stack.yaml': `extends: ${good}\nmachine: { vcpus: 2 }\nstack: { paging: { largePages: false } }\ndevices: []\n`,
      'mine/again.json': '{ "extends": "./stack.yaml", "machine": { "vcpus": 3 }, "boot": null }',
    })
    const once = await show(join(folder, 'mine/stack.yaml'))
    expect(once).toMatchObject({ machine: { vcpus: 2, memory: 64 * 2 ** 20 }, devices: [] })
    expect(once.layers[1]).toMatchObject({ strategy: 'nested', options: { largePages: false } })
    const twice = await show(join(folder, 'mine/again.json'))
    expect(twice).toMatchObject({ machine: { vcpus: 3 } })
    expect(twice.boot).toBeUndefined()
    remove()
  })

  it('drops the options of a package when the package changes', async () => {
    const { folder, remove } = await folderWith({
      'base.yaml': readFileSync(good, 'utf8')
        .replaceAll('./parts', join(fixtures, 'parts'))
        .replace('strategy: nested', 'strategy: nested, levels: 5'),
      'stack.yaml': `extends: ./base.yaml\nstack: { paging: { use: ${fixtures}/parts/../parts, strategy: shadowing } }\n`,
    })
    expect((await show(join(folder, 'stack.yaml'))).layers[1]).toMatchObject({ options: { roots: 4 } })
    remove()
  })
})

describe('a stack as a module', () => {
  it('says the same as YAML', async () => {
    const { folder, remove } = await folderWith({
      'nonroot.config.ts': `
        const parts: string = ${JSON.stringify(join(fixtures, 'parts'))}
        export default {
          apiVersion: 'nonroot/v1',
          stack: {
            cpu: { use: parts, strategy: 'assisted' }, paging: { use: parts, strategy: 'nested' },
            abi: { use: parts }, io: [{ use: parts }],
          },
          machine: { memory: 64 * 2 ** 20 },
          devices: [{ kind: 'counter', rate: 10 }],
          boot: { use: parts, linux: { kernel: './vmlinuz' } },
        }`,
    })
    const view = await show(join(folder, 'nonroot.config.ts'))
    expect({ ...view, file: '' }).toEqual({ ...(await show(good)), file: '' })
    remove()
  })
})

describe('commands', () => {
  it('stack show draws a tree', async () => {
    const { out } = await cli('stack', 'show', good)
    expect(out).toContain('├─ paging     test-parts@1.2.3 → nested { largePages: true, levels: 4 }')
    expect(out).toContain('│  └─ counter0   test-parts@1.2.3 → counter { rate: 10, mode: "up" }')
  })

  it('stack show --graph draws a picture with every layer', async () => {
    const { folder, remove } = await folderWith({})
    const file = join(folder, 'out.svg')
    expect((await cli('stack', 'show', good, '--graph', file)).status).toBe(0)
    const svg = readFileSync(file, 'utf8')
    for (const name of ['cpu: assisted', 'paging: nested', 'abi: bare', 'counter0: counter', 'secondStage', '>rate: 10<', '>ports, MMIO<']) {
      expect(svg).toContain(name)
    }
    expect((await cli('stack', 'show', good, '--graph', join(folder, 'no/such/out.svg'))).status).toBe(3)
    remove()
  })

  it.each(shippedStackNames())('stack show --graph %s: no word is on another, or outside', async (name) => {
    const { folder, remove } = await folderWith({})
    const file = join(folder, 'out.svg')
    const devices = '--set=devices=[{kind: virtio-blk, image: a}, {kind: virtio-net, network: user}, {kind: virtio-rng}]'
    expect((await cli('stack', 'show', name, ...(name.startsWith('xen') ? [] : [devices]), '--graph', file)).status).toBe(0)
    const svg = readFileSync(file, 'utf8')
    const [width, height] = /viewBox="0 0 (\d+) (\d+)"/.exec(svg)!.slice(1).map(Number) as [number, number]
    const words = [...svg.matchAll(/<text x="([\d.]+)" y="([\d.]+)" font-size="([\d.]+)"[^>]*?(?: text-anchor="(\w+)")?>([^<]*)</g)].map((found) => {
      const [x, y, size, long] = [Number(found[1]), Number(found[2]), Number(found[3]), Number(found[3]) * 0.55 * found[5]!.length]
      const left = found[4] === 'middle' ? x - long / 2 : found[4] === 'end' ? x - long : x
      return { text: found[5]!, left, right: left + long, top: y - size * 0.8, bottom: y }
    })
    expect(words.length).toBeGreaterThan(10)
    for (const [index, one] of words.entries()) {
      expect(one.left >= 0 && one.right <= width && one.top >= 0 && one.bottom <= height, one.text).toBe(true)
      const on = words.slice(index + 1).filter((two) => one.left < two.right && two.left < one.right && one.top < two.bottom && two.top < one.bottom)
      expect(on.map(({ text }) => text), `on "${one.text}"`).toEqual([])
    }
    remove()
  })

  it('stack show --graph --stats-from: figures beside the arrows', async () => {
    const metrics = [
      ...[1000, 234].map((value, index) => ({ name: `vcpu${index}.exits`, value })),
      { name: 'io.portReads', value: 77 },
      { name: 'device.counter0.accesses', value: 55 },
      { name: 'device.uart0.accesses', value: 22 },
    ]
    const { folder, remove } = await folderWith({ 'stats.json': JSON.stringify({ metrics }), 'no.json': '{}' })
    const [graph, from] = [join(folder, 'out.svg'), (name: string) => ['--stats-from', join(folder, name)]]
    expect((await cli('stack', 'show', good, '--graph', graph, ...from('stats.json'))).status).toBe(0)
    const svg = readFileSync(graph, 'utf8')
    for (const label of ['>exits: 1,234<', '>ports, MMIO: 77<', '>55<', 'uart0 22']) expect(svg).toContain(label)
    for (const [args, says, status] of [
      [['--graph', graph, ...from('no.json')], 'no.json has no statistics of a run\n  nonroot run --stats=json', 2],
      [['--graph', graph, ...from('none.json')], 'cannot read', 3],
      [from('stats.json'), '--stats-from is for a drawing', 2],
    ] as const)
      expect(await cli('stack', 'show', good, ...args)).toMatchObject({ status, err: expect.stringContaining(says) as string })
    remove()
  })

  it('config schema is a JSON Schema that knows every key', async () => {
    const schema = JSON.parse((await cli('config', 'schema')).out) as { properties: Record<string, unknown> }
    expect(Object.keys(schema.properties)).toEqual([
      'apiVersion',
      'extends',
      'stack',
      'machine',
      'host',
      'schedule',
      'reclaim',
      'devices',
      'boot',
      'image',
      'vms',
    ])
  })

  it('plugins lists what a stack names', async () => {
    const { out } = await cli('plugins', '--json', good)
    expect(JSON.parse(out)).toMatchObject([{ name: 'test-parts', version: '1.2.3' }])
  })

  it.each([
    { argv: ['--version'], status: 0 },
    { argv: ['--help'], status: 0 },
    { argv: [], status: 2 },
    { argv: ['stak'], status: 2, says: 'Did you mean stack?' },
    { argv: ['stack', 'shwo', 'x'], status: 2 },
    { argv: ['stack', 'show'], status: 2, says: 'missing required argument' },
    { argv: ['config', 'check', good, '--jsn'], status: 2, says: 'Did you mean --json?' },
    { argv: ['new', 'device', 'Not A Name'], status: 2, says: 'is no name for a package' },
  ])('$argv gives $status', async ({ argv, status, says = '' }) => {
    const result = await cli(...argv)
    expect(result.status, result.err).toBe(status)
    expect(result.err + result.out).toContain(says)
  })
})
