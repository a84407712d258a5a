/** Real packages, booted by QEMU. Takes minutes and the network: NONROOT_QEMU=1 npx vitest run src/qemu.test.ts */
import { spawnSync } from 'node:child_process'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { debianImage } from './debian.ts'
import { DEBIAN_PARAMETERS, guestParameters } from './init-script.ts'
import { nodeImageHost } from './testing/node-host.ts'

const cacheFolder = process.env['NONROOT_CACHE'] ?? join(tmpdir(), 'nonroot-image-tests')

function boot(kernel: string, initrd: string, command: readonly string[]) {
  const { parameters } = guestParameters({ command, marks: true })
  const append = [...DEBIAN_PARAMETERS, 'quiet', ...parameters].join(' ')
  const machine = ['-m', '512', '-nographic', '-monitor', 'none', '-serial', 'stdio', '-no-reboot', '-nic', 'none']
  const exit = ['-device', 'isa-debug-exit,iobase=0xf4,iosize=4']
  const args = ['-kernel', kernel, '-initrd', initrd, '-append', append, ...machine, ...exit]
  const { stdout, status } = spawnSync('qemu-system-x86_64', args, { encoding: 'utf8', timeout: 120_000, input: '' })
  const [, output, told] = /\x1b_nonroot:begin\x1b\\(.*)\x1b_nonroot:status=(\d+)\x1b\\/s.exec(stdout) ?? []
  return { output, told: Number(told), status }
}

describe.skipIf(!process.env['NONROOT_QEMU'])('in QEMU', () => {
  it.each(['cloud', 'generic'] as const)(
    'the %s kernel runs a command, as bzImage and as ELF',
    { timeout: 600_000 },
    async (flavour) => {
      const image = await debianImage(nodeImageHost, { flavour, cacheFolder })
      for (const kernel of [image.kernel, image.vmlinux]) {
        const { output, told, status } = boot(kernel, image.initrd, ['sh', '-c', 'uname -r; echo "a  b"; exit 42'])
        expect({ output, told, status }).toEqual({ output: `${image.release}\na  b\n`, told: 42, status: 85 })
      }
    },
  )

  it('packages that are included run', { timeout: 600_000 }, async () => {
    const include = ['stress-ng', 'sqlite3', 'python3-minimal']
    const { vmlinux, initrd } = await debianImage(nodeImageHost, { include, cacheFolder })
    const script =
      'sqlite3 :memory: "select 6*7"; python3 -c "print(6*7)"; stress-ng --cpu 1 --fork 1 -t 2 --verify 2>/dev/null'
    expect(boot(vmlinux, initrd, ['sh', '-c', script])).toEqual({ output: '42\n42\n', told: 0, status: 1 })
  })
})
