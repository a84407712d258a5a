/**
 * Debian's generic kernel with the guest's own IOMMU before every kind of device: DMA by strict invalidation, interrupts remapped. Linux's driver is the
 * judge. Takes minutes, and the network the first time: NONROOT_DEBIAN=1 npx vitest run src/run/guest-iommu.test.ts
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'
import { debianEnv as env, guestOf } from '../testing/debian.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-guest-iommu-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const STACK = {
  apiVersion: 'nonroot/v1',
  extends: join(import.meta.dirname, '../../../../stacks/kvm-like.yaml'),
  stack: {
    io: [
      { use: '@nonroot/io-emulated' },
      { use: '@nonroot/io-virtio', transport: 'pci' },
      { use: '@nonroot/io-pci-passthrough' },
    ],
  },
  devices: [
    ...['nvme', 'ahci', 'virtio-blk'].map((kind) => ({ kind, image: 'memory://16MiB' })),
    ...[{ kind: 'virtio-rng' }, { kind: 'virtio-balloon' }],
    ...['virtio-net', 'e1000'].map((kind) => ({ kind, network: 'user' })),
  ],
}

/** Each disk is written and read back past the page cache; each card reaches its network. */
const SCRIPT = `
dd if=/dev/urandom of=/tmp/r bs=64k count=16 2>/dev/null
for d in /sys/block/nvme* /sys/block/vd* /sys/block/sd*; do
  disk=/dev/\${d##*/}
  dd if=/tmp/r of=$disk bs=4k conv=fsync 2>/dev/null; echo 3 >/proc/sys/vm/drop_caches
  dd if=$disk bs=4k count=256 2>/dev/null | cmp - /tmp/r && echo same $disk
done
dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c
for card in eth0 eth1; do
  ip link set $card up; ip addr add 10.0.2.15/24 dev $card
  ping -c 3 -W 5 10.0.2.2 >/dev/null && echo reached $(basename $(readlink /sys/class/net/$card/device/driver))
  ip addr flush dev $card; ip link set $card down
done | sort
for device in /sys/bus/virtio/devices/*; do
  echo $(basename $(readlink $device/driver)) $(cut -c34 $device/features)
done | grep -E 'balloon|blk|net|rng' | sort
dmesg | grep -oE 'Enabled IRQ remapping in x2apic mode|invalidation policy: strict mode'
grep -cE ' IR-(IO-APIC|PCI-MSI)' /proc/interrupts
# A host that had other things to do says so.
dmesg -r | grep '^<[0-4]>' | grep -v 'hrtimer: interrupt took'
`

describe.skipIf(!process.env['NONROOT_DEBIAN'])("Debian behind the guest's IOMMU", { timeout: 1_500_000 }, () => {
  it.each([1, 4])('all devices work, without a fault or a warning: %i processors', async (vcpus) => {
    writeFileSync(join(folder, 'stack.yaml'), JSON.stringify({ ...STACK, machine: { memory: '512 MiB', vcpus } }))
    const guest = [...(await guestOf('generic')), '--cmdline', 'console=ttyS0 intel_iommu=on iommu.strict=1']
    const command = ['--stats', 'json', '--timeout', '15m', '--', 'sh', '-c', SCRIPT]
    const { out, err } = await spawnCli(['run', join(folder, 'stack.yaml'), ...guest, ...command], { env })
    const lines = out.trim().split('\n')
    const remapped = Number(lines.pop())
    expect(lines, out + err).toEqual([
      ...['same /dev/nvme0n1', 'same /dev/vda', 'same /dev/sda', '256'],
      ...['reached e1000', 'reached virtio_net'],
      // VIRTIO_F_ACCESS_PLATFORM: Linux's balloon clears it.
      ...['virtio_balloon 0', 'virtio_blk 1', 'virtio_net 1', 'virtio_rng 1'],
      ...['Enabled IRQ remapping in x2apic mode', 'invalidation policy: strict mode'],
    ])
    expect(remapped).toBeGreaterThan(12)
    const { metrics } = JSON.parse(err.slice(err.indexOf('{"version')).split('\n')[0]!) as {
      metrics: { name: string; value: number }[]
    }
    const counted = (name: string): number => metrics.find((metric) => metric.name === `device.io2.${name}`)!.value
    console.log(
      `${vcpus}: ${counted('interruptsRemapped')} interrupts remapped, ${counted('invalidations')} invalidations, ${counted('iotlbMisses')} walks`,
    )
    expect([counted('blocked'), counted('interruptsBlocked')]).toEqual([0, 0])
    // Each buffer that is unmapped is forgotten at once: an invalidation, and a wait for it.
    expect(counted('invalidations')).toBeGreaterThan(200)
  })
})
