/** Malformed configurations: each gives one clear error at its place, exit status 2, no stack trace. */

import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cli, fixtures, folderWith, stackTrace } from './testing/cli.ts'

const parts = join(fixtures, 'parts')

/** A sound stack, with some of its lines replaced. */
const good = (replace: Readonly<Record<string, string>> = {}): string => {
  const lines: Record<string, string> = {
    apiVersion: 'apiVersion: nonroot/v1',
    stack: 'stack:',
    cpu: `  cpu: { use: ${parts}, strategy: assisted }`,
    paging: `  paging: { use: ${parts}, strategy: nested }`,
    abi: `  abi: { use: ${parts} }`,
    io: `  io: [{ use: ${parts} }]`,
    machine: 'machine: { memory: 64 MiB }',
    devices: 'devices: [{ kind: counter, rate: 10 }]',
    boot: `boot: { use: ${parts}, linux: { kernel: ./vmlinuz } }`,
    ...replace,
  }
  return Object.values(lines).filter(Boolean).join('\n') + '\n'
}

interface Case {
  readonly name: string
  /** `line:column` */
  readonly at?: string
  readonly says: readonly (string | RegExp)[]
  readonly text?: string
  readonly file?: string
  readonly set?: string[]
  readonly files?: Readonly<Record<string, string>>
}

const cases: Case[] = [
  // The text itself
  { name: 'an empty file', text: '', says: ['the file is empty', 'apiVersion: nonroot/v1'] },
  { name: 'only a comment', text: '# nothing\n', says: ['the file is empty'] },
  { name: 'a list', text: '- a\n- b\n', at: '1:1', says: ['a stack file is a map of keys; this is a list'] },
  { name: 'a word', text: 'hello\n', at: '1:1', says: ['"hello"'] },
  { name: 'an open bracket', text: good({ io: '  io: [{ use: x }' }), at: '7:1', says: ['Flow sequence'] },
  { name: 'a tab as indentation', text: good({ abi: '\tabi: { use: x }' }), says: [/[Tt]ab/] },
  {
    name: 'a key given twice',
    text: good({ abi: '  abi: { use: x }\n  abi: { use: y }' }),
    at: '6:3',
    says: ['unique'],
  },
  { name: 'an anchor that does not exist', text: good({ machine: 'machine: *nope' }), at: '7:10', says: ['alias'] },
  { name: 'two documents', text: `${good()}---\n${good()}`, says: ['documents'] },
  { name: 'a list as a key', text: `${good()}? [a, b]\n: 1\n`, says: ['a key must be a word'] },
  { name: 'aliases that blow up', text: bomb(), says: ['unfolds to more'] },
  {
    name: 'JSON with a trailing comma',
    file: 'stack.json',
    text: '{\n  "apiVersion": "nonroot/v1",\n}\n',
    at: '3:1',
    says: ['not JSON'],
  },
  {
    name: 'JSON with a comment',
    file: 'stack.json',
    text: '{\n  // no\n  "apiVersion": "nonroot/v1"\n}\n',
    at: '2:3',
    says: ['not JSON'],
  },
  { name: 'JSON cut short', file: 'stack.json', text: '{ "apiVersion": "nonroot/v1",', says: ['not JSON'] },
  { name: 'a file that is not there', file: 'other.txt', says: ['cannot read', 'there is no such file'], text: good() },
  { name: 'a file of another kind', file: 'stack.toml', text: 'a = 1', says: ['its name must end in .yaml'] },
  {
    name: 'a module without default export',
    file: 'stack.mjs',
    text: 'export const a = 1',
    says: ['must export a stack as its default; it exports none'],
  },
  { name: 'a module that throws', file: 'stack.mjs', text: 'throw new Error("oh")', says: ['cannot be imported: oh'] },
  {
    name: 'a module that exports a function',
    file: 'stack.mjs',
    text: 'export default () => {}',
    says: ['it exports a function'],
  },

  // Keys and values
  {
    name: 'no apiVersion',
    text: good({ apiVersion: '' }),
    at: '1:1',
    says: ['apiVersion is missing', 'valid: "nonroot/v1"'],
  },
  {
    name: 'another apiVersion',
    text: good({ apiVersion: 'apiVersion: nonroot/v2' }),
    at: '1:13',
    says: ['"nonroot/v2" is not valid', 'did you mean "nonroot/v1"?'],
  },
  {
    name: 'a misspelt key at the top',
    text: good({ machine: 'machin: { memory: 64 MiB }' }),
    at: '7:1',
    says: ['unknown key "machin"', 'did you mean "machine"?'],
  },
  {
    name: 'a misspelt key in the stack',
    text: good({ paging: '  pagign: { use: x }' }),
    at: '4:3',
    says: ['stack.pagign: unknown key "pagign"', 'did you mean "paging"?'],
  },
  {
    name: 'a misspelt key in the machine',
    text: good({ machine: 'machine: { memroy: 64 MiB }' }),
    at: '7:12',
    says: ['machine.memroy', 'did you mean "memory"?'],
  },
  { name: 'no stack', text: 'apiVersion: nonroot/v1\n', at: '1:1', says: ['stack is missing'] },
  { name: 'no paging', text: good({ paging: '' }), at: '3:3', says: ['stack.paging is missing'] },
  {
    name: 'paging as a word',
    text: good({ paging: '  paging: ept' }),
    at: '4:11',
    says: ['stack.paging: "ept" is not valid', 'a map of keys'],
  },
  {
    name: 'a layer without use',
    text: good({ abi: '  abi: { strategy: bare }' }),
    at: '5:8',
    says: ['stack.abi.use is missing', 'an npm package'],
  },
  {
    name: 'use as a number',
    text: good({ abi: '  abi: { use: 7 }' }),
    at: '5:15',
    says: ['stack.abi.use: 7 is not valid'],
  },
  { name: 'no I/O model', text: good({ io: '  io: []' }), at: '6:7', says: ['stack.io: [] is not valid'] },
  {
    name: 'I/O as one instead of a list',
    text: good({ io: `  io: { use: ${parts} }` }),
    at: '6:7',
    says: ['stack.io', 'a list'],
  },
  {
    name: 'a size without sense',
    text: good({ machine: 'machine: { memory: much }' }),
    at: '7:20',
    says: ['"much" is not a size; write it as 512 MiB'],
  },
  {
    name: 'a decimal unit',
    text: good({ machine: 'machine: { memory: 1 GB }' }),
    at: '7:20',
    says: ['"GB" is not a unit of size', 'did you mean 1 GiB?'],
  },
  {
    name: 'no memory at all',
    text: good({ machine: 'machine: { memory: 0 }' }),
    at: '7:20',
    says: ['0 B is out of range (1 MiB to'],
  },
  {
    name: 'more memory than can be',
    text: good({ machine: 'machine: { memory: 64 TiB }' }),
    at: '7:20',
    says: ['64 TiB is out of range'],
  },
  {
    name: 'negative memory',
    text: good({ machine: 'machine: { memory: -5 }' }),
    at: '7:20',
    says: ['-5 is not a whole number of bytes'],
  },
  {
    name: 'a memory that is no multiple of a frame',
    text: good({ machine: 'machine: { memory: 67108865 }' }),
    at: '7:20',
    says: ['not a multiple of a frame'],
  },
  {
    name: 'a memory that is a list',
    text: good({ machine: 'machine: { memory: [1] }' }),
    at: '7:20',
    says: ['machine.memory: [1] is not valid'],
  },
  {
    name: 'no vCPU',
    text: good({ machine: 'machine: { vcpus: 0 }' }),
    at: '7:19',
    says: ['machine.vcpus: 0 is not valid', 'a whole number from 1 to 64'],
  },
  {
    name: 'half a vCPU',
    text: good({ machine: 'machine: { vcpus: 1.5 }' }),
    at: '7:19',
    says: ['machine.vcpus: 1.5 is not valid'],
  },
  {
    name: 'a misspelt clock',
    text: good({ machine: 'machine: { clock: determinstic }' }),
    at: '7:19',
    says: ['"determinstic" is not valid', 'did you mean "deterministic"?'],
  },
  {
    name: 'a device without kind',
    text: good({ devices: 'devices: [{ rate: 1 }]' }),
    at: '8:11',
    says: ['devices[0].kind is missing'],
  },
  {
    name: 'a device name with a space',
    text: good({ devices: 'devices: [{ kind: counter, rate: 1, name: my dev }]' }),
    at: '8:43',
    says: ['devices[0].name', 'letters, digits and hyphens'],
  },
  {
    name: 'two devices of one name',
    text: good({ devices: 'devices: [{ kind: counter, rate: 1, name: a }, { kind: counter, rate: 1, name: a }]' }),
    says: ['two devices are called "a"'],
  },
  {
    name: 'two boot protocols',
    text: good({ boot: 'boot: { linux: {}, pvh: {} }' }),
    at: '9:7',
    says: ['boot names 2 protocols (linux, pvh)'],
  },
  { name: 'no boot protocol', text: good({ boot: 'boot: {}' }), at: '9:7', says: ['boot names no protocol'] },
  {
    name: 'a boot protocol with a word',
    text: good({ boot: 'boot: { linux: ./vmlinuz }' }),
    at: '9:16',
    says: ["a map of the protocol's options"],
  },

  // extends
  {
    name: 'extends a file that is not there',
    text: `extends: ./base.yaml\n${good()}`,
    at: '1:10',
    says: ['extends: cannot read', 'no such file'],
  },
  {
    name: 'extends a file of another kind',
    text: `extends: ./base.toml\n${good()}`,
    files: { 'base.toml': 'a = 1' },
    at: '1:10',
    says: [/extends: .*base\.toml is no stack file/],
  },
  {
    name: 'extends a folder',
    text: `extends: ./parts.yaml\n${good()}`,
    files: { 'parts.yaml/x': '' },
    at: '1:10',
    says: [/extends: cannot read .*parts\.yaml: it is a folder/],
  },
  {
    name: 'extends an empty file',
    text: `extends: ./base.yaml\n${good()}`,
    files: { 'base.yaml': '' },
    at: '1:10',
    says: [/extends: .*base\.yaml: the file is empty/, 'apiVersion: nonroot/v1'],
  },
  {
    name: 'extends a file that extends nothing that is there',
    text: `extends: ./b.yaml\n${good()}`,
    files: { 'b.yaml': '# first line\nextends: ./c.yaml\n' },
    says: [/b\.yaml:2:10: extends: cannot read .*c\.yaml/],
  },
  { name: 'extends itself', text: `extends: ./stack.yaml\n${good()}`, at: '1:10', says: ['extends goes in a circle'] },
  {
    name: 'extends in a circle',
    text: `extends: ./b.yaml\n${good()}`,
    files: { 'b.yaml': 'extends: ./stack.yaml\n' },
    says: ['circle', /b\.yaml:1:10: /],
  },
  { name: 'extends a number', text: `extends: 7\n${good()}`, at: '1:10', says: ['extends: 7 is not valid'] },
  {
    name: 'extends a package that is not there',
    text: `extends: no-such-package/x.yaml\n${good()}`,
    at: '1:10',
    says: ['cannot find "no-such-package/x.yaml"'],
  },
  {
    name: 'an error in the extended file',
    text: 'extends: ./b.yaml\n',
    files: { 'b.yaml': good({ machine: 'machine: { vcpus: 99 }' }) },
    says: [/b\.yaml:7:19: machine\.vcpus: 99/],
  },

  // --set
  {
    name: '--set without =',
    text: good(),
    set: ['machine.memory'],
    says: ['--set machine.memory', 'there is no = in it'],
  },
  { name: '--set without key', text: good(), set: ['=3'], says: ['there is no key before ='] },
  { name: '--set with a strange key', text: good(), set: ['machine..memory=3'], says: ['"machine..memory" is no key'] },
  {
    name: '--set of an unknown key',
    text: good(),
    set: ['machine.memmory=1GiB'],
    says: ['--set machine.memmory=1GiB', 'did you mean "memory"?'],
  },
  {
    name: '--set of a wrong value',
    text: good(),
    set: ['machine.vcpus=many'],
    says: ['machine.vcpus: "many" is not valid'],
  },
  {
    name: '--set into a scalar',
    text: good(),
    set: ['machine.memory.size=1'],
    says: ['machine.memory is "64 MiB", which has no parts'],
  },
  {
    name: '--set past the end of a list',
    text: good(),
    set: ['devices[7].rate=1'],
    says: ['devices has 1 items, so there is no [7]'],
  },
  {
    name: '--set of a list by name',
    text: good(),
    set: ['devices.rate=1'],
    says: ['devices is a list: name an item by number'],
  },
  { name: '--set of broken YAML', text: good(), set: ['machine.memory=[1'], says: ['--set machine.memory=[1'] },

  // Packages and options
  {
    name: 'a package that is not installed',
    text: good({ paging: '  paging: { use: "@nonroot/mmuu" }' }),
    at: '4:18',
    says: ['"@nonroot/mmuu" is not installed'],
  },
  {
    name: 'a folder that is not there',
    text: good({ paging: '  paging: { use: ./nowhere }' }),
    at: '4:18',
    says: ['there is no package at ./nowhere'],
  },
  {
    name: 'a package that is no plugin',
    text: good({ paging: '  paging: { use: zod }' }),
    at: '4:18',
    says: ['is no plugin: its package.json has no "nonroot" field'],
  },
  {
    name: 'a module of Node',
    text: good({ paging: '  paging: { use: "node:fs" }' }),
    at: '4:18',
    says: ['"node:fs" is not installed'],
  },
  {
    name: 'a misspelt strategy',
    text: good({ paging: `  paging: { use: ${parts}, strategy: nestd }` }),
    says: ['has no paging strategy "nestd"', 'did you mean "nested"?'],
  },
  {
    name: 'no strategy where there are several',
    text: good({ paging: `  paging: { use: ${parts} }` }),
    says: ['test-parts has 3 paging strategies: say which', 'nested, shadowing, direct'],
  },
  {
    name: 'a misspelt policy',
    text: good({ io: `  io: [{ use: ${parts} }]\n  reclaim: [{ use: ${parts}, policy: ballon }]` }),
    says: ['has no reclaim strategy "ballon"', 'did you mean "balloon"?'],
  },
  {
    name: 'a misspelt option',
    text: good({ paging: `  paging: { use: ${parts}, strategy: nested, largePage: true }` }),
    says: ['stack.paging.largePage: unknown option "largePage" of test-parts nested', 'did you mean "largePages"?'],
  },
  {
    name: 'an option out of range',
    text: good({ paging: `  paging: { use: ${parts}, strategy: nested, levels: 6 }` }),
    says: ['stack.paging.levels: 6 is not valid', 'a whole number from 4 to 5'],
  },
  {
    name: 'an option where there are none',
    text: good({ abi: `  abi: { use: ${parts}, colour: red }` }),
    says: ['stack.abi.colour', 'takes no options'],
  },
  {
    name: 'a missing option',
    text: good({ devices: 'devices: [{ kind: counter }]' }),
    at: '8:11',
    says: ['devices[0].rate is missing (an option of test-parts counter)'],
  },
  {
    name: 'an unknown kind of device',
    text: good({ devices: 'devices: [{ kind: conter, rate: 1 }]' }),
    at: '8:19',
    says: ['no package of this stack provides a device "conter"', 'did you mean "counter"?'],
  },
  {
    name: 'a misspelt value of an option',
    text: good({ devices: 'devices: [{ kind: counter, rate: 1, mode: dwon }]' }),
    at: '8:43',
    says: ['"dwon" is not valid', 'did you mean "down"?'],
  },
  {
    name: 'an unknown boot protocol',
    text: good({ boot: `boot: { use: ${parts}, linus: { kernel: x } }` }),
    says: ['has no boot strategy "linus"', 'did you mean "linux"?'],
  },

  // Compositions that cannot work
  {
    name: 'nested paging without a second stage',
    text: good({ cpu: `  cpu: { use: ${parts}, strategy: translated }` }),
    says: ['stack.paging: test-parts nested needs secondStage', 'nothing in this stack gives'],
  },
  {
    name: 'a paravirtual CPU with shadow paging',
    text: good({
      cpu: `  cpu: { use: ${parts}, strategy: paravirtual }`,
      paging: `  paging: { use: ${parts}, strategy: shadowing }`,
    }),
    says: ['test-parts paravirtual needs directPaging'],
  },
  {
    name: 'a balloon policy without balloon',
    text: good({ io: `  io: [{ use: ${parts} }]\n  reclaim: [{ use: ${parts}, policy: balloon }]` }),
    says: ['test-parts balloon needs balloon (a balloon device in the guest)'],
  },
]

/** Ten levels of ten aliases each. */
function bomb(): string {
  const levels = Array.from(
    { length: 9 },
    (_, level) => `a${level + 1}: &a${level + 1} [${Array(10).fill(`*a${level}`).join(', ')}]`,
  )
  return `a0: &a0 [x]\n${levels.join('\n')}\n`
}

describe('malformed configurations', () => {
  const removers: (() => void)[] = []
  afterAll(() => removers.forEach((remove) => remove()))

  it.each(cases)('$name', async ({ text = '', file = 'stack.yaml', at, says, set = [], files = {} }) => {
    const { folder, remove } = await folderWith({ [file === 'other.txt' ? 'unused' : file]: text, ...files })
    removers.push(remove)
    const path = join(folder, file === 'other.txt' ? 'absent.yaml' : file)
    const { status, out, err } = await cli('config', 'check', path, ...set.flatMap((one) => ['--set', one]))
    expect({ status, out }).toEqual({ status: 2, out: '' })
    if (at) expect(err).toContain(`error: ${path}:${at}: `)
    for (const words of says) {
      if (typeof words === 'string') expect(err).toContain(words)
      else expect(err).toMatch(words)
    }
    expect(err).not.toMatch(stackTrace)
    expect(err.match(/^error: /gm)?.length).toBeGreaterThanOrEqual(1)
  })

  it('are at least 40', () => expect(cases.length).toBeGreaterThanOrEqual(40))
})

describe('several errors in one file', () => {
  let folder: string
  let remove: () => void
  beforeAll(async () => {
    const text = good({ apiVersion: 'apiVersion: v1', machine: 'machine: { memory: 1 GB, vcpu: 2 }', io: '  io: []' })
    ;({ folder, remove } = await folderWith({ 'stack.yaml': text }))
  })
  afterAll(() => remove())

  it('are all told at once, each at its place', async () => {
    const { status, err } = await cli('config', 'check', join(folder, 'stack.yaml'))
    expect(status).toBe(2)
    expect(err.match(/^error: .*stack\.yaml:\d+:\d+/gm)).toHaveLength(4)
  })

  it('are told to scripts as JSON', async () => {
    const { status, out, err } = await cli('config', 'check', '--json', join(folder, 'stack.yaml'))
    const told = JSON.parse(out) as {
      valid: boolean
      errors: { code: string; location: { line: number }; thing: string }[]
    }
    expect({ status, err, valid: told.valid }).toEqual({ status: 2, err: '', valid: false })
    expect(told.errors.map((error) => error.thing).sort()).toEqual([
      'apiVersion',
      'machine.memory',
      'machine.vcpu',
      'stack.io',
    ])
    expect(told.errors.every((error) => error.code === 'config.schema' && error.location.line > 0)).toBe(true)
  })
})
