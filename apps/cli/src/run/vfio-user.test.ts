/**
 * A disk that another process serves, under Debian's cloud kernel: its driver reads and writes it; when the process is killed in mid-transfer, the guest has
 * I/O errors and goes on. Takes a minute, and the network the first time: NONROOT_DEBIAN=1 npx vitest run src/run/vfio-user.test.ts
 */

import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { hostOf } from '../commands/device-serve.ts'
import { cli, command, spawnCli } from '../testing/cli.ts'
import { debianEnv as env, guestOf } from '../testing/debian.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-vfio-user-'))
const image = join(folder, 'disk.img')
const socket = join(folder, 'nvme.sock')
const stack = join(folder, 'stack.yaml')
const MIB = 2 ** 20
let server: ChildProcess | undefined
afterAll(() => {
  server?.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** In a process of its own. Resolves when it serves. */
async function serve(): Promise<ChildProcess> {
  const child = spawn(command[0]!, [...command.slice(1), 'device', 'serve', socket, '--device', `nvme,image=${image}`])
  await new Promise<void>((resolve, reject) => {
    child.stdout.on('data', (bytes: Buffer) => bytes.toString().includes('is served at') && resolve())
    child.on('exit', (status) => reject(new Error(`the server ended with status ${status}`)))
  })
  return child
}

describe('what is served', () => {
  it('is a device and its options, as on the host of a stack file', () => {
    expect(hostOf('nvme,image=./a=b.img,readOnly=true,size=4').devices).toEqual([
      { kind: 'nvme', at: '01:00.0', image: './a=b.img', readOnly: true, size: 4 },
    ])
  })
  it.each([
    ['nvme,image', /"image" is no option/],
    ['nvm,image=memory://1MiB', /did you mean "nvme"/],
    ['nvme,imge=memory://1MiB', /imge/],
    ['e1000,network=none', /neither MSI-X nor MSI/],
    ['uart16550', /uart16550/],
  ])('refused: %s', async (device, reason) => {
    const { status, err } = await cli('device', 'serve', socket, '--device', device)
    expect(err).toMatch(reason)
    expect(err).not.toContain('bug in nonroot')
    expect(status).not.toBe(0)
  })
  it('a guest without its server is refused', async () => {
    const devices = `devices=[{kind: vfio-user, use: "@nonroot/io-pci-passthrough", socket: "${folder}/none.sock"}]`
    const { status, err } = await spawnCli([
      'run',
      '--kernel',
      join(import.meta.dirname, '../../../../guests/hello/hello.elf'),
      '--set',
      devices,
    ])
    expect([status, err]).toEqual([
      3,
      expect.stringMatching(/cannot connect to .*none.sock[^]*start the program that listens there first/),
    ])
  })
})

describe.skipIf(!process.env['NONROOT_DEBIAN'])('a disk of another process', { timeout: 600_000 }, () => {
  const run = async (script: string) => {
    writeFileSync(
      stack,
      `apiVersion: nonroot/v1
extends: ${join(import.meta.dirname, '../../../../stacks/kvm-like.yaml')}
devices:
  - { kind: vfio-user, use: "@nonroot/io-pci-passthrough", socket: ${socket} }
`,
    )
    const command = [...(await guestOf('cloud')), '--timeout', '5m', '--', 'sh', '-c', script]
    return spawnCli(['run', stack, ...command], { env })
  }

  it('is read and written, and its process ends when asked', async () => {
    const disk = randomBytes(4 * MIB)
    writeFileSync(image, disk)
    server = await serve()
    const { out, err } = await run(`
sha256sum < /dev/nvme0n1
dd if=/dev/urandom of=/tmp/random bs=64k count=8 2>/dev/null
dd if=/tmp/random of=/dev/nvme0n1 bs=4k seek=100 conv=fsync 2>/dev/null
sha256sum < /tmp/random
dmesg -r | grep '^<[0-4]>' | grep -iE 'nvme|I/O error'
`)
    const written = readFileSync(image).subarray(400 * 1024, 912 * 1024)
    expect(out.trim().split(/\s*\n/), err).toEqual([`${sha256(disk)}  -`, `${sha256(written)}  -`])
    const ended = new Promise((resolve) => server!.on('exit', resolve))
    server.kill('SIGTERM')
    expect(await ended).toBe(0)
  })

  it('gives I/O errors when its process is killed in mid-transfer, and the guest goes on', async () => {
    writeFileSync(image, randomBytes(4 * MIB))
    server = await serve()
    // Clears the first sector, then reads without end.
    const guest = run(`
dd if=/dev/zero of=/dev/nvme0n1 bs=512 count=1 conv=fsync 2>/dev/null
while dd if=/dev/nvme0n1 of=/dev/null bs=64k iflag=direct 2>/dev/null; do :; done
echo failed
dmesg | grep -qE 'I/O error, dev nvme0n1|nvme0: .*(down|removing|Removing|Disabling)' && echo told
echo alive $((6 * 7))
`)
    while (readFileSync(image)[0] !== 0 || readFileSync(image)[1] !== 0) await new Promise((resolve) => setTimeout(resolve, 500))
    await new Promise((resolve) => setTimeout(resolve, 2000))
    server.kill('SIGKILL')
    const { status, out, err } = await guest
    expect(out.trim().split(/\s*\n/), err).toEqual(['failed', 'told', 'alive 42'])
    expect([status, err]).toEqual([0, expect.stringContaining('its registers read as all ones now') as string])
  })
})
