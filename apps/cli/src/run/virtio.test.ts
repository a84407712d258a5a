/**
 * Linux's own drivers on our virtio devices, under Debian's cloud and generic kernels, over every transport and ring. Takes minutes, and the
 * network the first time: NONROOT_DEBIAN=1 npx vitest run src/run/virtio.test.ts
 */

import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'
import { debianEnv as env, guestOf } from '../testing/debian.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-virtio-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** Each line is checked below. What the kernel says of a device at level warning or worse comes last, and is nothing. */
const SCRIPT = `
for i in /sys/bus/virtio/devices/*; do echo "$(cat $i/device) $(readlink $i/driver | sed 's,.*/,,') $(cat $i/status)"; done
sha256sum < /dev/vda
dd if=/dev/hwrng of=/tmp/random bs=64k count=8 2>/dev/null
dd if=/tmp/random of=/dev/vda bs=4k seek=100 conv=fsync 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
sha256sum < /tmp/random
dd if=/dev/vda bs=4k skip=100 count=$(($(stat -c %s /tmp/random) / 4096)) 2>/dev/null | sha256sum
dd if=/tmp/random of=/dev/vdb conv=fsync 2>/dev/null; blkdiscard -o 4096 -l 65536 /dev/vdb && echo discarded
echo $(cat /sys/block/vdb/ro) $(cat /sys/block/vdc/ro) $(cat /sys/block/vdc/serial) $(ls /sys/block/vdb/mq)
dd if=/tmp/random of=/dev/vdc bs=512 count=1 conv=fsync 2>&1 | grep -c 'not permitted'
cat /sys/class/virtio-ports/*/name
`
const SHARE_SCRIPT = `
mkdir -p /mnt/host && mount -t 9p -o trans=virtio,version=9p2000.L host /mnt/host
cat /mnt/host/hello && cp /tmp/random /mnt/host/random && sha256sum < /mnt/host/random
echo hello | timeout 60 socat - VSOCK-CONNECT:2:1234
`
const COMPLAINTS = `dmesg -r | grep '^<[0-4]>' | grep -iE 'virtio|vd[a-z]|hwrng|balloon|vport|9p|vsock|blk_update|I/O error'\n`

const WAYS = [
  { way: 'PCI, split', options: {} },
  { way: 'PCI, packed', options: { ring: 'packed' } },
  { way: 'MMIO, split', options: { transport: 'mmio' } },
  { way: 'MMIO, packed', options: { transport: 'mmio', ring: 'packed' } },
]

const CASES = [
  ...(['cloud', 'generic'] as const).flatMap((flavour) => WAYS.map((each) => ({ flavour, ...each }))),
  { flavour: 'cloud' as const, way: 'PCI, no EVENT_IDX, no indirect', options: { eventIndex: false, indirect: false } },
]

const DRIVERS = [
  '0x0002 virtio_blk 0x0000000f',
  '0x0002 virtio_blk 0x0000000f',
  '0x0002 virtio_blk 0x0000000f',
  '0x0004 virtio_rng 0x0000000f',
  '0x0005 virtio_balloon 0x0000000f',
  '0x0003 virtio_console 0x0000000f',
  '0x0013 vmw_vsock_virtio_transport 0x0000000f',
]

describe.skipIf(!process.env['NONROOT_DEBIAN'])('Debian on virtio', { timeout: 1_500_000 }, () => {
  it.each(CASES)('$flavour: binds and uses every device without a warning: $way', async ({ flavour, options }) => {
    // The cloud kernel has no 9P.
    const shares = flavour === 'generic'
    const guest = await guestOf(flavour, shares ? ['git', 'socat'] : [])
    const disk = randomBytes(4 << 20)
    writeFileSync(join(folder, 'disk.img'), disk)
    mkdirSync(join(folder, 'shared'), { recursive: true })
    writeFileSync(join(folder, 'shared/hello'), 'hello from the host\n')
    const shouter = createServer({ allowHalfOpen: true }, (socket) => {
      socket.on('data', (bytes) => void socket.write(bytes.toString().toUpperCase()))
      socket.on('end', () => socket.end())
    }).listen(join(folder, 'vm.sock_1234'))
    const stack = {
      apiVersion: 'nonroot/v1',
      extends: join(import.meta.dirname, '../../../../stacks/kvm-like.yaml'),
      stack: { io: [{ use: '@nonroot/io-emulated' }, { use: '@nonroot/io-virtio', ...options }] },
      devices: [
        { kind: 'virtio-blk', image: './disk.img' },
        { kind: 'virtio-blk', image: 'memory://1MiB', queues: 2 },
        { kind: 'virtio-blk', image: './disk.img', readOnly: true, serial: 'nonroot-1' },
        { kind: 'virtio-rng' },
        { kind: 'virtio-balloon' },
        { kind: 'virtio-console', ports: [{ name: 'org.nonroot.test' }] },
        { kind: 'virtio-vsock', path: './vm.sock' },
        ...(shares ? [{ kind: 'virtio-9p', path: './shared', tag: 'host' }] : []),
      ],
    }
    writeFileSync(join(folder, 'stack.yaml'), JSON.stringify(stack))
    const script = SCRIPT + (shares ? SHARE_SCRIPT : '') + COMPLAINTS
    const run = ['run', join(folder, 'stack.yaml'), ...guest, '--timeout', '20m', '--', 'sh', '-c', script]
    const { out, err } = await spawnCli(run, { env })
    shouter.close()
    const lines = out.trim().split('\n')
    const drivers = shares ? [...DRIVERS, '0x0009 9pnet_virtio 0x0000000f'] : DRIVERS
    expect(lines.splice(0, drivers.length), out + err).toEqual(drivers)
    expect(lines.shift()).toBe(`${sha256(disk)}  -`)
    const [written, read] = lines.splice(0, 2)
    expect(read).toBe(written)
    expect(lines.splice(0, 4), out + err).toEqual(['discarded', '0 1 nonroot-1 0', '1', 'org.nonroot.test'])
    if (shares) {
      expect(lines.splice(0, 3), out + err).toEqual(['hello from the host', written, 'HELLO'])
      expect(`${sha256(readFileSync(join(folder, 'shared/random')))}  -`).toBe(written)
    }
    // Nothing else: no complaint.
    expect(lines).toEqual([])
    expect(readFileSync(join(folder, 'disk.img')).equals(disk)).toBe(false)
  })
})
