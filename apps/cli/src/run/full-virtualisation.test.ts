/** The stack of full virtualisation from outside: guests of ours always; Debian with NONROOT_DEBIAN=1, as in debian.test.ts. */

import { writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { folderWith, spawnCli } from '../testing/cli.ts'
import { firmwareImage } from '../testing/guests.ts'

const path = (name: string): string => fileURLToPath(new URL(`../../../../${name}`, import.meta.url))
const stack = path('stacks/full-virtualisation.yaml')
const hello = path('guests/hello/hello.elf')
const demo = path('guests/demo/demo.elf')
const hostile = path('guests/hostile/hostile.elf')
const env = { NONROOT_CACHE: process.env['NONROOT_CACHE'] ?? join(tmpdir(), 'nonroot-image-tests') }
const common = ['run', stack, '--network', 'none', '--memory', '64M']

const countedIn = (err: string): Readonly<Record<string, number>> => {
  const { metrics } = JSON.parse(err) as { metrics: { name: string; value: number }[] }
  return Object.fromEntries(metrics.map(({ name, value }) => [name, value]))
}

describe('full virtualisation', { timeout: 60_000 }, () => {
  it('interprets a 32-bit kernel', async () => {
    const { status, out, err } = await spawnCli([...common, '--kernel', hello, '--stats=json'])
    expect({ status, out }).toEqual({ status: 33, out: 'hello\n' })
    const counted = countedIn(err)
    expect(counted['vcpu0.translator.blocks']).toBe(0)
    expect(counted['vcpu0.instructions.interpreted']).toBeGreaterThan(10)
  })

  it('interprets firmware in real mode', async () => {
    const { folder, remove } = await folderWith({})
    const image = join(folder, 'firmware.bin')
    const file = join(folder, 'stack.yaml')
    // mov al, 'k'; mov dx, 3f8h; out dx, al; then status 0 to the exit port.
    const code = [0xb0, 0x6b, 0xba, 0xf8, 0x03, 0xee, 0xba, 0xf4, 0x00, 0x66, 0xb8, 0x00, 0x00, 0x52, 0x4e, 0x66, 0xef, 0xf4]
    await writeFile(image, firmwareImage(code))
    await writeFile(file, JSON.stringify({ apiVersion: 'nonroot/v1', extends: stack, boot: { firmware: { image } } }))
    const { status, out, err } = await spawnCli(['run', file, '--stats=json'])
    remove()
    expect({ status, out }).toEqual({ status: 0, out: 'k' })
    expect(countedIn(err)['vcpu0.instructions.interpreted']).toBeGreaterThan(5)
  })

  it('translates a 64-bit kernel, whose checks all pass', async () => {
    const { status, out, err } = await spawnCli([...common, '--kernel', demo, '--stats=json'])
    expect(out).toMatch(/28 checks, 0 failed/)
    expect(status).toBe(0)
    const counted = countedIn(err)
    expect(counted['vcpu0.translator.blocks']).toBeGreaterThan(100)
    expect(counted['vcpu0.instructions.translated']).toBeGreaterThan(1_000_000)
    expect(counted['vcpu0.instructions.interpreted']).toBeLessThan(100_000)
  })

  it('shows nothing of the monitor, its tables and its cache to a kernel that tries all holes of the address space', async () => {
    const options = ['--network', 'none', '--memory', '64M', '--kernel', hostile]
    const { status, out, err } = await spawnCli(['run', stack, ...options, '--stats=json'])
    expect(out).toContain('26005 attempts, 0 not refused')
    expect(status).toBe(0)
    // The cache was there, and made way each time.
    expect(countedIn(err)['vcpu0.translator.moves']).toBeGreaterThan(100)
    // The same exceptions, at the same addresses, with the same codes.
    expect((await spawnCli(['run', path('stacks/kvm-like-shadow.yaml'), ...options])).out).toBe(out)
  })

  it.each([
    { what: 'a second stage', set: 'stack.paging.strategy=ept', says: /needs secondStage/ },
    { what: 'tables of its own', set: 'stack.paging.strategy=direct', says: /needs pvEntry/ },
  ])('is refused with $what, and says why', async ({ set, says }) => {
    const { status, err } = await spawnCli([...common, '--set', set, '--kernel', hello])
    expect(status).toBe(2)
    expect(err).toMatch(says)
  })
})

describe.skipIf(!process.env['NONROOT_DEBIAN'])('Debian, translated', { timeout: 900_000 }, () => {
  it('runs a command and returns its status', async () => {
    const words = ['sh', '-c', 'echo in the guest; exit 7']
    const result = await spawnCli(['run', stack, '--timeout', '12m', '--', ...words], { env })
    expect([result.status, result.out]).toEqual([7, 'in the guest\n'])
  })

  it('runs on two vCPUs', async () => {
    const result = await spawnCli(['run', stack, '--timeout', '12m', '--set', 'machine.vcpus=2', '--', 'sh', '-c', 'nproc; exit 7'], { env })
    expect([result.status, result.out]).toEqual([7, '2\n'])
  })
})
