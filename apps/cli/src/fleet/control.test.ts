/** A running fleet from another process: `ps`, `attach`, `stop`, `memory`, `metrics`. */

import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { readdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it, vi } from 'vitest'
import { cli, command, folderWith, spawnCli } from '../testing/cli.ts'
import { Code, multibootGuest } from '../testing/guests.ts'

let folder: string
let remove: () => void
let child: ChildProcess
let out = ''
let ended: Promise<number | null>

beforeEach(async () => {
  ;({ folder, remove } = await folderWith({
    'fleet.yaml': `apiVersion: nonroot/v1
stack:
  cpu: { use: "@nonroot/cpu-vmx", codeCacheMiB: 8 }
  paging: { use: "@nonroot/mmu", strategy: ept }
  abi: { use: "@nonroot/abi-kvm", strategy: kvm }
  io: [{ use: "@nonroot/io-emulated" }]
machine: { memory: 8 MiB }
host:
  devices:
    - { kind: nvme, at: "01:00.0", image: "memory://1MiB" }
    - { kind: nvme, at: "02:00.0", image: "memory://1MiB" }
vms:
  - name: web
    boot: { multiboot: { kernel: ./echo.elf } }
    devices: [{ kind: pci-passthrough, use: "@nonroot/io-pci-passthrough", host: "02:00.0" }]
  - { name: db, boot: { multiboot: { kernel: ./idle.elf } } }
`,
  }))
  await writeFile(
    join(folder, 'echo.elf'),
    multibootGuest([...Code.print('web is up\n'), ...Array(20).fill(Code.echo).flat(), ...Code.exit(5)]),
  )
  await writeFile(join(folder, 'idle.elf'), multibootGuest([...Code.print('db is up\n'), ...Code.loop]))
  vi.stubEnv('NONROOT_RUNTIME', join(folder, 'run'))
  out = ''
  child = spawn(command[0]!, [...command.slice(1), 'run', join(folder, 'fleet.yaml')], {
    stdio: ['ignore', 'pipe', 'inherit'],
  })
  child.stdout!.on('data', (chunk: Buffer) => (out += chunk.toString()))
  ended = new Promise((resolve) => child.on('close', resolve))
  for (const line of ['web| web is up', 'db | db is up'])
    await vi.waitFor(() => expect(out).toContain(line), { timeout: 60_000, interval: 50 })
}, 60_000)
afterEach(async () => {
  child.kill('SIGKILL')
  await ended
  vi.unstubAllEnvs()
  remove()
})

it('is listed, looked into, typed at, and stopped VM by VM', { timeout: 120_000 }, async () => {
  const listed = await cli('ps', '--json')
  expect(JSON.parse(listed.out)).toMatchObject([
    {
      pid: child.pid,
      vms: [
        { name: 'web', state: 'running', vcpus: 1, memory: { maximumFrames: expect.any(Number) as number } },
        { name: 'db', state: 'running' },
      ],
    },
  ])
  expect((await cli('ps')).out).toMatch(
    /^HOST +NAME +STATE[^\n]*\n\d+ +web +running +\d+ s +[\d.]+ \w+ of [^\n]*fleet\.yaml\n\d+ +db +running/,
  )
  expect((await cli('memory')).out).toMatch(
    /^host \d+ \(.*fleet\.yaml\): guests use [\d.]+ of [\d.]+ MiB, processors [\d.]+ MiB\nNAME +MAXIMUM[^]*\nweb +7\.9 /,
  )
  expect((await cli('host')).out.replaceAll(/ +/g, ' ')).toBe(
    `HOST FUNCTION GROUP KIND NAME ID OWNER\n${[
      `${child.pid} 01:00.0 1 nvme nvme0 8086:2700`,
      `${child.pid} 02:00.0 2 nvme nvme1 8086:2700 web`,
    ].join('\n')}\n`,
  )
  expect((await cli('metrics', 'db')).out).toMatch(/^nonroot_vcpu_instructions\{vm="db",vcpu="0"\} \d{4,}$/m)

  expect((await cli('stop', 'nobody')).err).toMatch(/no VM "nobody" is running\n {2}there are: \d+\/web, \d+\/db/)
  expect(await cli('stop', 'db', '--timeout', '300ms')).toMatchObject({
    status: 2,
    err: 'error: db: the guest does not listen to its power button\n  nonroot stop --force ends it without asking\n',
  })
  expect(await cli('stop', 'db', '--force')).toEqual({ status: 0, out: '', err: '' })
  expect(JSON.parse((await cli('ps', '--json')).out)).toMatchObject([
    { vms: [{ state: 'running' }, { state: 'ended', status: 0 }] },
  ])

  const attached = await spawnCli(['attach', 'web'], {
    input: { text: '12345678901234567890', afterMs: 1500 },
  })
  expect(attached).toEqual({ status: 0, out: '12345678901234567890', err: '' })
  expect(await ended).toBe(5)
  // It leaves nothing behind.
  expect(await readdir(join(folder, 'run'))).toEqual([])
})

it('a single VM has the same sockets, by the name that it was given', { timeout: 60_000 }, async () => {
  const alone = spawn(
    command[0]!,
    [...command.slice(1), 'run', '--memory', '8M', '--name', 'alone', '--kernel', join(folder, 'idle.elf')],
    { stdio: 'ignore' },
  )
  const gone = new Promise((resolve) => alone.on('close', resolve))
  await vi.waitFor(async () => expect((await cli('ps')).out).toMatch(/ alone +running /), { timeout: 30_000 })
  // The name of the fleet's VM is not in its way.
  expect((await cli('stop', 'alone', '--force')).status).toBe(0)
  expect(await gone).toBe(0)
})
