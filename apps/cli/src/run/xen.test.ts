/** The Xen-like stack from outside: a guest of ours always; Debian with NONROOT_DEBIAN=1, as in debian.test.ts. */

import { createHash } from 'node:crypto'
import { mkdtempSync, readFileSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'
import { GuestConsole } from '../testing/console.ts'

const path = (name: string): string => fileURLToPath(new URL(`../../../../${name}`, import.meta.url))
const stack = path('stacks/xen-like.yaml')
const hello = path('guests/xen-hello/hello.elf')
const hostile = path('guests/xen-hostile/hostile.elf')
const env = { NONROOT_CACHE: process.env['NONROOT_CACHE'] ?? join(tmpdir(), 'nonroot-image-tests') }

describe('xen-like', { timeout: 60_000 }, () => {
  it('runs the smallest paravirtual guest to its end', async () => {
    const result = await spawnCli(['run', stack, '--memory', '32M', '--kernel', hello])
    expect(result).toEqual({ status: 0, out: "hello from the hypervisor's console\nhello from the ring\n", err: '' })
  })

  it('refuses whatever a hostile kernel tries', async () => {
    const { status, out, err } = await spawnCli(['run', stack, '--memory', '32M', '--kernel', hostile, '--stats=json'])
    expect({ status, out }).toEqual({ status: 0, out: '51 attempts, 0 not refused\n' })
    const { metrics } = JSON.parse(err) as { metrics: { name: string; value: number }[] }
    const counted = Object.fromEntries(
      metrics
        .filter(({ name }) => name.startsWith('paging.refused.'))
        .map(({ name, value }) => [name.slice(15), value]),
    )
    expect(counted).toEqual({
      flags: 1,
      frame: 1,
      owner: 3,
      use: 12,
      slot: 1,
      descriptor: 1,
      range: 2,
      pin: 2,
      walk: 0,
      grant: 0,
    })
  })

  it.each([
    { what: 'shadow paging', set: 'stack.paging.strategy=shadow', says: /needs hardwareRoot/ },
    { what: 'VMX', set: 'stack.cpu.use="@nonroot/cpu-vmx"', says: /needs pvEntry/ },
    { what: 'the PC', set: 'stack.io=[{"use":"@nonroot/io-emulated"}]', says: /needs eventChannels/ },
  ])('is refused with $what, and says why', async ({ set, says }) => {
    const { status, err } = await spawnCli(['run', stack, '--set', set, '--kernel', hello])
    expect(status).toBe(2)
    expect(err).toMatch(says)
  })

  it('says that a kernel takes no paravirtual start', async () => {
    const { status, err } = await spawnCli(['run', stack, '--kernel', path('guests/hello/hello.elf')])
    expect(status).toBe(2)
    expect(err).toMatch(/XEN_ELFNOTE_XEN_VERSION is not there\n.*boot it by linux or pvh/s)
  })
})

describe('xen-pvh', () => {
  it.each([
    {
      what: 'direct paging',
      set: 'stack.paging.strategy=direct',
      says: /direct needs pvEntry .*\n.*direct needs tableHypercalls/s,
    },
    { what: 'a guest at CPL 3', set: 'stack.cpu.use="@nonroot/cpu-paravirt"', says: /ept needs secondStage/ },
    {
      what: 'no local APICs',
      set: 'stack.io=[{"use":"@nonroot/io-xen","strategy":"xen-hvm"}]',
      says: /needs interruptController/,
    },
    { what: 'events for paravirtual guests', set: 'stack.io[1].strategy=xen', says: /second interruptController/ },
  ])('is refused with $what, and says why', async ({ set, says }) => {
    const { status, err } = await spawnCli(['run', path('stacks/xen-pvh.yaml'), '--set', set, '--kernel', hello])
    expect(status).toBe(2)
    expect(err).toMatch(says)
  })
})

describe('xen-hvm', () => {
  it.each([
    { what: 'a guest at CPL 3', set: 'stack.cpu.use="@nonroot/cpu-paravirt"', says: /ept needs secondStage/ },
    { what: 'direct paging', set: 'stack.paging.strategy=direct', says: /direct needs pvEntry/ },
    {
      what: 'no PC under the platform device',
      set: 'stack.io[0].strategy=local-apics',
      says: /xen-platform needs pci/,
    },
  ])('is refused with $what, and says why', async ({ set, says }) => {
    const { status, err } = await spawnCli(['run', path('stacks/xen-hvm.yaml'), '--set', set, '--kernel', hello])
    expect(status).toBe(2)
    expect(err).toMatch(says)
  })
})

describe.skipIf(!process.env['NONROOT_DEBIAN'])('Debian as a Xen guest', { timeout: 600_000 }, () => {
  it.each([
    { stack: 'xen-like', vcpus: 1, boots: 'kernel on Xen' },
    { stack: 'xen-like', vcpus: 2, boots: 'kernel on Xen' },
    { stack: 'xen-pvh', vcpus: 1, boots: 'kernel on Xen PVH' },
    { stack: 'xen-pvh', vcpus: 2, boots: 'kernel on Xen PVH' },
    { stack: 'xen-hvm', vcpus: 1, boots: 'paravirtualized kernel on Xen HVM' },
    { stack: 'xen-hvm', vcpus: 2, boots: 'paravirtualized kernel on Xen HVM' },
  ])('runs a command on $stack with $vcpus vCPU', async ({ stack, vcpus, boots }) => {
    const words = ['sh', '-c', 'dmesg | grep -E "Booting .*kernel on|BUG|WARNING"; nproc; exit 7']
    const result = await spawnCli(
      ['run', path(`stacks/${stack}.yaml`), '--timeout', '5m', '--set', `machine.vcpus=${vcpus}`, '--', ...words],
      { env },
    )
    expect(result.status).toBe(7)
    expect(result.out.replaceAll(/^\[[\d. ]+\] /gm, '')).toBe(`Booting ${boots}\n${vcpus}\n`)
  })

  it.each([
    { stack: 'xen-like', vcpus: 1 },
    { stack: 'xen-like', vcpus: 2 },
    { stack: 'xen-pvh', vcpus: 2 },
    { stack: 'xen-hvm', vcpus: 2 },
  ])('restarts and powers off on $stack with $vcpus vCPU', async ({ stack, vcpus }) => {
    const argv = [
      'run',
      path(`stacks/${stack}.yaml`),
      '--timeout',
      '5m',
      '--set',
      `machine.vcpus=${vcpus}`,
      '--stats=json',
    ]
    const guest = new GuestConsole(argv, env)
    for (const what of ['reboot', 'poweroff']) {
      await guest.expect(/~# /, 100)
      guest.type(`dmesg | grep -E "(BUG|WARNING):"; echo up $(nproc); ${what} -f\n`)
      expect((await guest.expect(/\nup \d+/, 60)).split(/\r?\n/).slice(1)).toEqual([`up ${vcpus}`])
    }
    expect(await guest.end()).toBe(0)
    expect(guest.log).toMatch(/"abi.leaks"[^}]*"value":0}/)
  })

  it.each(['xen-like', 'xen-pvh', 'xen-hvm'])('has a disk and a network card on %s', async (stack) => {
    const image = join(mkdtempSync(join(tmpdir(), 'nonroot-xen-')), 'disk.img')
    const bytes = Uint8Array.from({ length: 1 << 20 }, (_, index) => (index * 7 + (index >>> 8)) & 0xff)
    writeFileSync(image, bytes)
    const script = [
      'sha256sum </dev/xvda',
      'dd if=/dev/xvda of=/dev/xvda bs=64k count=4 skip=4 seek=8 conv=notrunc 2>/dev/null',
      'sync',
      'ip addr show eth0 | grep -o "inet [0-9.]*"',
      'dmesg | grep -E "BUG|WARNING"',
      'exit 7',
    ]
    const devices = ['--device', `xen-blkback,image=${image}`, '--network', 'user']
    const result = await spawnCli(
      ['run', path(`stacks/${stack}.yaml`), '--timeout', '5m', ...devices, '--', 'sh', '-c', script.join('; ')],
      { env },
    )
    const sum = createHash('sha256').update(bytes).digest('hex')
    expect([result.status, result.out]).toEqual([7, `${sum}  -\ninet 10.0.2.15\n`])
    bytes.copyWithin(512 << 10, 256 << 10, 512 << 10)
    expect(Buffer.compare(readFileSync(image), bytes)).toBe(0)
  })
})
