/** Debian's own drivers on our virtio devices. Takes minutes, and the network the first time: NONROOT_DEBIAN=1 npx vitest run src/run/virtio.test.ts */

import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'

const env = { NONROOT_CACHE: process.env['NONROOT_CACHE'] ?? join(tmpdir(), 'nonroot-image-tests') }
const folder = mkdtempSync(join(tmpdir(), 'nonroot-virtio-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const SCRIPT = `
for i in /sys/bus/virtio/devices/*; do echo "$(cat $i/device) $(readlink $i/driver | sed 's,.*/,,') $(cat $i/status)"; done
sha256sum < /dev/vda
dd if=/dev/hwrng of=/tmp/random bs=64k count=8 2>/dev/null
dd if=/tmp/random of=/dev/vda bs=4k seek=100 conv=fsync 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
sha256sum < /tmp/random
dd if=/dev/vda bs=4k skip=100 count=$(($(stat -c %s /tmp/random) / 4096)) 2>/dev/null | sha256sum
dmesg -r | grep '^<[0-4]>' | grep -iE 'virtio|vd[a-z]|hwrng|balloon|vport'
`

describe.skipIf(!process.env['NONROOT_DEBIAN'])('Debian on virtio', { timeout: 600_000 }, () => {
  it.each([
    { name: 'PCI', options: {} },
    { name: 'PCI, packed ring', options: { ring: 'packed' } },
    { name: 'PCI, no EVENT_IDX and no indirect descriptors', options: { eventIndex: false, indirect: false } },
    { name: 'MMIO', options: { transport: 'mmio' } },
  ])('binds every device without a warning: $name', async ({ options }) => {
    const disk = randomBytes(4 << 20)
    writeFileSync(join(folder, 'disk.img'), disk)
    mkdirSync(join(folder, 'shared'), { recursive: true })
    const stack = {
      apiVersion: 'nonroot/v1',
      extends: join(import.meta.dirname, '../../../../stacks/kvm-like.yaml'),
      stack: { io: [{ use: '@nonroot/io-emulated' }, { use: '@nonroot/io-virtio', ...options }] },
      devices: [
        { kind: 'virtio-blk', image: './disk.img' },
        { kind: 'virtio-rng' },
        { kind: 'virtio-balloon' },
        { kind: 'virtio-console', ports: [{ name: 'org.nonroot.test' }] },
      ],
    }
    writeFileSync(join(folder, 'stack.yaml'), JSON.stringify(stack))
    const run = ['run', join(folder, 'stack.yaml'), '--timeout', '5m', '--', 'sh', '-c', SCRIPT]
    const { out } = await spawnCli(run, { env })
    const [rng, blk, ...rest] = out.trim().split('\n')
    expect([rng, blk]).toEqual(['0x0002 virtio_blk 0x0000000f', '0x0004 virtio_rng 0x0000000f'])
    expect(rest.slice(0, 3)).toEqual([
      '0x0005 virtio_balloon 0x0000000f',
      '0x0003 virtio_console 0x0000000f',
      `${createHash('sha256').update(disk).digest('hex')}  -`,
    ])
    expect(rest[3]).toBe(rest[4])
    expect(rest.slice(5)).toEqual([])
    expect(readFileSync(join(folder, 'disk.img')).equals(disk)).toBe(false)
  })
})
