/** `nonroot run` with several VMs, from outside: lines told apart, exit statuses, errors of the file. */

import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cli, folderWith, spawnCli, stackTrace } from '../testing/cli.ts'
import { Code, multibootGuest } from '../testing/guests.ts'

let folder: string
let remove: () => void
beforeAll(async () => ({ folder, remove } = await folderWith({})))
afterAll(() => remove())

const GUESTS = {
  seven: [Code.print('bye\n'), Code.exit(7)],
  off: [Code.print('one\ntwo\nthree'), Code.powerOff],
  triple: [Code.print('oops\n'), Code.undefined],
  loop: [Code.print('on\n'), Code.loop],
}

const STACK = `apiVersion: nonroot/v1
stack:
  cpu: { use: "@nonroot/cpu-vmx", codeCacheMiB: 8 }
  paging: { use: "@nonroot/mmu", strategy: ept }
  abi: { use: "@nonroot/abi-kvm", strategy: kvm }
  io: [{ use: "@nonroot/io-emulated" }]
machine: { memory: 8 MiB }
`

/** Runs VMs, each a guest above; `more` is added to the file. */
async function fleet(vms: Record<string, keyof typeof GUESTS>, more = '', ...options: string[]) {
  for (const guest of new Set(Object.values(vms)))
    await writeFile(join(folder, `${guest}.elf`), multibootGuest(GUESTS[guest].flat()))
  const entries = Object.entries(vms).map(
    ([name, guest]) => `  - { name: ${name}, boot: { multiboot: { kernel: ./${guest}.elf } } }\n`,
  )
  const file = join(folder, 'fleet.yaml')
  await writeFile(file, `${STACK}${more}vms:\n${entries.join('')}`)
  return spawnCli(['run', file, ...options])
}

const linesOf = (out: string): string[] => out.split('\n').toSorted()

describe('several VMs', { timeout: 60_000 }, () => {
  it.each([
    { where: 'on one thread', set: [] },
    { where: 'in a thread each', set: ['--set', 'stack.scheduler={ use: "@nonroot/hypervisor", strategy: threads }'] },
  ])('run $where: their lines carry names, a failed one leaves the others running', async ({ set }) => {
    const result = await fleet({ web: 'off', db: 'triple', x: 'seven' }, '', ...set)
    expect(linesOf(result.out)).toEqual(
      linesOf('web| one\nweb| two\nweb| three\ndb | oops\nx  | bye\n')
        .filter((line) => line !== '')
        .concat('')
        .toSorted(),
    )
    expect(result.err).toMatch(/^db: the guest crashed: triple fault at RIP 0x[0-9a-f]+ \(vCPU 0\)\n$/)
    // Of the first in the file that did not end well.
    expect(result.status).toBe(4)
  })

  it('ends well only if all did', async () => {
    expect(await fleet({ a: 'off', b: 'off' })).toMatchObject({ status: 0, err: '' })
    expect(await fleet({ a: 'off', b: 'seven' })).toMatchObject({ status: 7, err: '' })
  })

  it('stops those that run too long, and no others', async () => {
    const result = await fleet({ a: 'off', b: 'loop' }, '', '--timeout', '1s')
    expect(result.status).toBe(124)
    expect(result.err).toMatch(/^b: the guest still ran after 1s at RIP/)
  })

  it('writes logs and metrics of each', async () => {
    const logs = join(folder, 'logs')
    const result = await fleet({ a: 'off', b: 'seven' }, '', '--logs', logs, '--stats', 'json')
    expect(await readFile(join(logs, 'a.log'), 'utf8')).toBe('one\ntwo\nthree')
    expect(await readFile(join(logs, 'b.log'), 'utf8')).toBe('bye\n')
    const stats = JSON.parse(result.err) as Record<string, { metrics: { name: string; value: number }[] }>
    expect(Object.keys(stats)).toEqual(['a', 'b'])
    expect(stats['b']!.metrics.find(({ name }) => name === 'vcpu0.instructions')!.value).toBeGreaterThan(0)
  })
})

describe('what is wrong with vms', () => {
  const check = async (vms: string, more = ''): Promise<string> => {
    const file = join(folder, 'wrong.yaml')
    await writeFile(file, `${STACK}${more}vms:\n${vms}`)
    const { status, err } = await cli('run', file)
    expect(status).toBe(2)
    expect(err).not.toMatch(stackTrace)
    return err.replaceAll(folder, '')
  }

  it.each([
    {
      what: 'two of one name',
      vms: '  - { name: a }\n  - { name: a }\n',
      says: '/wrong.yaml:10:13: vms[1].name: two VMs are called "a"\n  give each its own name',
    },
    { what: 'no name', vms: '  - { machine: {} }\n', says: '/wrong.yaml:9:5: vms[0].name is missing' },
    {
      what: 'a bad name',
      vms: '  - { name: a/b }\n',
      says: '/wrong.yaml:9:13: vms[0].name: "a/b" is not valid\n  valid: a string: what its console, metrics and control socket are called: up to 32 letters, digits and hyphens, a letter first',
    },
    {
      what: 'an unknown key',
      vms: '  - { name: a, machin: {} }\n',
      says: '/wrong.yaml:9:16: vms[0].machin: unknown key "machin"\n  did you mean "machine"?',
    },
    {
      what: 'an unknown key below',
      vms: '  - { name: a, machine: { vcpu: 2 } }\n',
      says: '/wrong.yaml:9:27: vms[0].machine.vcpu: unknown key "vcpu"\n  did you mean "vcpus"?',
    },
    {
      what: 'two boot protocols',
      vms: '  - { name: a, boot: { linux: {}, multiboot: {} } }\n',
      says: '/wrong.yaml:9:22: VM a: boot names 2 protocols (linux, multiboot)',
    },
    { what: 'none', vms: '  []\n', says: '/wrong.yaml:9:3: vms: [] is not valid' },
    {
      what: 'a host too small for the minimums',
      more: 'host: { memory: 12 MiB }\n',
      vms: '  - { name: a, reclaim: { minimum: 8 MiB } }\n  - { name: b, reclaim: { minimum: 5 MiB } }\n',
      says: '/wrong.yaml:8:17: host.memory: 12 MiB is less than the 13 MiB that its VMs are never to go below',
    },
    {
      what: 'a minimum above the machine',
      vms: '  - { name: a, reclaim: { minimum: 9 MiB } }\n',
      says: '/wrong.yaml:9:36: VM a: reclaim.minimum: 9 MiB is more than the 8 MiB that it may have',
    },
  ])('$what: file, line and remedy', async ({ vms, more, says }) => {
    expect(await check(vms, more)).toContain(says)
  })

  it('a group whose VMs are in several threads: they could not share', async () => {
    const file = join(folder, 'wrong.yaml')
    await writeFile(file, `${STACK}reclaim: { group: g }\nvms: [{ name: a }, { name: b }]\n`)
    const threads = 'stack.scheduler={ use: "@nonroot/hypervisor", strategy: threads }'
    const { status, err } = await cli('run', file, '--set', threads)
    expect([status, err]).toEqual([
      2,
      expect.stringMatching(
        /^error: .*and VMs can share pages within one thread only\n {2}choose another scheduler \(credit, round-robin\), or leave reclaim.group out\n$/,
      ),
    ])
  })

  it('a name that is no name', async () => {
    expect((await cli('run', '--name', '../x')).err).toMatch(/--name: "\.\.\/x" is not valid\n {2}a name is up to 32/)
  })

  it('a plugin that is not there, of one VM: `config check` says whose', async () => {
    const file = join(folder, 'wrong.yaml')
    await writeFile(
      file,
      `${STACK}vms:\n  - { name: a }\n  - { name: b, stack: { paging: { use: "@nonroot/none" } } }\n`,
    )
    const { status, err } = await cli('config', 'check', file)
    expect([status, err.replaceAll(folder, '')]).toEqual([
      2,
      expect.stringMatching(
        /^error: \/wrong\.yaml:10:40: VM b: stack\.paging\.use: the package "@nonroot\/none" is not installed/,
      ),
    ])
  })

  it('options of one VM', async () => {
    const file = join(folder, 'wrong.yaml')
    await writeFile(file, `${STACK}vms: [{ name: a }]\n`)
    expect((await cli('run', file, '--disk', 'x.img')).err).toMatch(
      /--disk is for one VM[^]*name a disk in its devices/,
    )
  })
})
