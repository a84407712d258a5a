/** Debian with a memory device (virtio-mem): it brings what is plugged online. NONROOT_DEBIAN=1 npx vitest run src/run/memory-device.test.ts */

import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'

const env = { NONROOT_CACHE: process.env['NONROOT_CACHE'] ?? join(tmpdir(), 'nonroot-image-tests') }
/** Waits for so many kB more than the machine has without it. */
const COMMAND = 'until [ $(awk "/^MemTotal/ { print \\$2 }" /proc/meminfo) -gt $1 ]; do sleep 0.1; done; grep -c "(virtio_mem)" /proc/iomem'

describe.skipIf(!process.env['NONROOT_DEBIAN'])('Debian with a memory device', { timeout: 600_000 }, () => {
  it.each([
    ['all of it', [], 128 + 256],
    ['a part of it', ['--set', 'devices=[{"kind":"virtio-mem","requested":"192 MiB"}]'], 128 + 192],
  ])('uses %s', async (_, set, mib) => {
    const device = set.length > 0 ? set : ['--set', 'devices=[{"kind":"virtio-mem"}]']
    const memory = ['--memory', '128M', '--set', 'machine.pluggable=256 MiB']
    // The kernel keeps some 30 MiB for itself.
    const least = String((mib - 40) * 1024)
    const { status, out, err } = await spawnCli(['run', '--timeout', '5m', ...memory, ...device, '--', 'sh', '-c', COMMAND, 'sh', least], { env })
    expect([status, out], err).toEqual([0, '1\n'])
  })

  it('says what is missing without pluggable memory', async () => {
    const { status, err } = await spawnCli(['run', '--memory', '128M', '--set', 'devices=[{"kind":"virtio-mem"}]', '--', 'true'], { env })
    expect(status).toBe(2)
    expect(err).toContain('set machine.pluggable to a multiple of 128 MiB')
  })
})
