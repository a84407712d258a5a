/** SIGINT and SIGTERM to a run: the guest is asked first. */

import { spawn } from 'node:child_process'
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it, vi } from 'vitest'
import { command, folderWith } from '../testing/cli.ts'
import { Code, multibootGuest } from '../testing/guests.ts'

let folder: string
let remove: () => void
beforeAll(async () => {
  ;({ folder, remove } = await folderWith({
    'fleet.yaml': `apiVersion: nonroot/v1
extends: nonroot/stacks/kvm-like.yaml
machine: { memory: 8 MiB }
host: { memory: 192 MiB }
stack: { cpu: { codeCacheMiB: 8 } }
vms:
  - { name: a, boot: { multiboot: { kernel: ./polite.elf } } }
  - { name: b, boot: { multiboot: { kernel: ./polite.elf } } }
`,
  }))
  const guests = {
    polite: [Code.enableButton, Code.print('up\n'), Code.untilButton, Code.print('bye\n'), Code.powerOff],
    deaf: [Code.print('up\n'), Code.loop],
    stubborn: [Code.enableButton, Code.print('up\n'), Code.loop],
  }
  for (const [name, code] of Object.entries(guests)) await writeFile(join(folder, `${name}.elf`), multibootGuest(code.flat()))
})
afterAll(() => remove())

it.each([
  { guest: 'polite', signals: ['SIGTERM'], more: ['--stop-timeout', '1h'], status: 143, out: 'up\nbye\n' },
  { guest: 'polite', signals: ['SIGINT'], more: [], status: 130, out: 'up\nbye\n' },
  { guest: 'deaf', signals: ['SIGINT'], more: ['--stop-timeout', '1h'], status: 130, out: 'up\n' },
  { guest: 'stubborn', signals: ['SIGTERM'], more: ['--stop-timeout', '300ms'], status: 143, out: 'up\n' },
  { guest: 'stubborn', signals: ['SIGTERM', 'SIGINT'], more: ['--stop-timeout', '1h'], status: 130, out: 'up\n' },
  { guest: 'fleet', signals: ['SIGTERM'], more: ['--stop-timeout', '1h'], status: 143, out: /^(?=[^]*a\| bye\n)(?=[^]*b\| bye\n)/ },
] as const)('$signals ends a guest that is $guest', { timeout: 120_000 }, async ({ guest, signals, more, status, out }) => {
  const what = guest === 'fleet' ? [join(folder, 'fleet.yaml')] : ['--memory', '8M', '--kernel', join(folder, `${guest}.elf`)]
  const child = spawn(command[0]!, [...command.slice(1), 'run', ...what, ...more], { stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, NONROOT_RUNTIME: join(folder, 'run') } })
  let text = ''
  child.stdout.on('data', (chunk: Buffer) => (text += chunk.toString()))
  const ended = new Promise((resolve) => child.on('close', resolve))
  await vi.waitFor(() => expect(text.match(/up\n/g)).toHaveLength(guest === 'fleet' ? 2 : 1), { timeout: 60_000, interval: 20 })
  for (const signal of signals) {
    child.kill(signal)
    await new Promise((resolve) => setTimeout(resolve, 300))
  }
  expect(await ended).toBe(status)
  if (typeof out === 'string') expect(text).toBe(out)
  else expect(text).toMatch(out)
})
