/**
 * Linux's own drivers on our emulated disks, under Debian's cloud and generic kernels. Takes minutes, and the network the first time:
 * NONROOT_DEBIAN=1 npx vitest run src/run/emulated-disk.test.ts
 */

import { createHash, randomBytes } from 'node:crypto'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'
import { debianEnv as env, guestOf } from '../testing/debian.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-emulated-disk-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')

/** Each line is checked below. What the kernel says of a disk at level warning or worse comes last, and is nothing. */
const SCRIPT = `
for i in /sys/class/scsi_host/*; do [ -e $i ] && cat $i/proc_name; done | sort -u
for i in /sys/class/nvme/*; do [ -e $i ] && basename $(readlink $i/device/driver); done | sort -u
# Controllers are probed side by side: which disk is which, its size says.
for d in /sys/block/sd* /sys/block/nvme*; do [ -e $d ] || continue; [ $(cat $d/size) = 8192 ] && disk=\${d##*/} || other=\${d##*/}; done
sha256sum < /dev/$disk
dd if=/dev/urandom of=/tmp/random bs=64k count=8 2>/dev/null
dd if=/tmp/random of=/dev/$disk bs=4k seek=100 conv=fsync 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
sha256sum < /tmp/random
dd if=/dev/$disk bs=4k skip=100 count=128 2>/dev/null | sha256sum
queues=/sys/block/$disk/device/queue_depth; [ -e $queues ] || queues=/sys/block/$disk/device/queue_count
cat /sys/block/$disk/queue/minimum_io_size $queues | tr '\\n' ' '; echo
[ -n "$other" ] && blkdiscard -o 4096 -l 65536 /dev/$other && echo discarded
dmesg -r | grep '^<[0-4]>' | grep -iE 'ata[0-9. ]|nvme|ahci|piix|sd[a-z]|scsi|I/O error'
`
const CASES = [
  { flavour: 'cloud', kind: 'ide', driver: 'ata_piix', depth: 1, disks: 1 },
  { flavour: 'generic', kind: 'ide', driver: 'ata_piix', depth: 1, disks: 1 },
  { flavour: 'generic', kind: 'ahci', driver: 'ahci', depth: 32, disks: 2 },
  // Its queues: the admin queue, and one a processor.
  { flavour: 'cloud', kind: 'nvme', driver: 'nvme', depth: 2, disks: 2 },
  { flavour: 'generic', kind: 'nvme', driver: 'nvme', depth: 2, disks: 2 },
] as const

describe.skipIf(!process.env['NONROOT_DEBIAN'])('Debian on emulated disks', { timeout: 1_500_000 }, () => {
  it.each(CASES)('$flavour: $driver binds and uses $kind without a warning', async (one) => {
    const guest = await guestOf(one.flavour)
    const disk = randomBytes(4 << 20)
    writeFileSync(join(folder, 'disk.img'), disk)
    mkdirSync(join(folder, 'empty'), { recursive: true })
    // A raw file has no way to be told of what does not matter; qcow2 has.
    const trim = join(folder, 'trim.qcow2')
    // The case before has written to its own.
    rmSync(trim, { force: true })
    const made = await spawnCli(['image', 'disk', '--from', join(folder, 'empty'), '--size', '8MiB', trim])
    expect(made.status, made.err).toBe(0)
    const stack = {
      apiVersion: 'nonroot/v1',
      extends: join(import.meta.dirname, '../../../../stacks/kvm-like.yaml'),
      devices: [
        { kind: one.kind, image: './disk.img' },
        ...(one.disks > 1 ? [{ kind: one.kind, image: './trim.qcow2' }] : []),
      ],
    }
    writeFileSync(join(folder, 'stack.yaml'), JSON.stringify(stack))
    const run = ['run', join(folder, 'stack.yaml'), ...guest, '--timeout', '20m', '--', 'sh', '-c', SCRIPT]
    const { out, err } = await spawnCli(run, { env })
    const lines = out
      .trim()
      .split('\n')
      .map((line) => line.trim())
    expect(lines.splice(0, 2), out + err).toEqual([one.driver, `${sha256(disk)}  -`])
    const [written, read] = lines.splice(0, 2)
    expect(read).toBe(written)
    expect(lines.shift()).toBe(`4096 ${one.depth}`)
    if (one.disks > 1) expect(lines.shift()).toBe('discarded')
    // Nothing else: no complaint.
    expect(lines).toEqual([])
    expect(`${sha256(readFileSync(join(folder, 'disk.img')).subarray(400 << 10, 912 << 10))}  -`).toBe(written)
  })
})
