/**
 * The root file system on an assigned NVMe disk, under Debian's cloud kernel: used with checksums, killed in the middle of a write, checked, used again.
 * Takes minutes, and the network the first time: NONROOT_DEBIAN=1 npx vitest run src/run/assigned-root.test.ts
 */

import { copyFileSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'
import { GuestConsole } from '../testing/console.ts'
import { debianEnv as env, guestOf } from '../testing/debian.ts'
import { fsck } from '../testing/fsck.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-assigned-root-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const disk = join(folder, 'root.img')
const stack = join(folder, 'stack.yaml')
const SECONDS = 300

/** The system's only process. The first time it writes what is safe, and then for ever; the second time it looks at what is left. */
const INIT = `#!/bin/sh
echo "ROOT $(awk '$2 == "/" { device = $1 " " $3 } END { print device }' /proc/mounts)"
cd /root
if [ -e sum ]; then
  sha256sum <safe | cmp - sum && echo "SAFE $(ls safe-* | wc -l)"
  cd /; mount -o remount,ro / && poweroff -f
fi
dd if=/dev/urandom of=a bs=1M count=6 2>/dev/null; sync; sha256sum <a >same
dd if=a of=b bs=64k oflag=direct 2>/dev/null; dd if=b of=c bs=4k conv=fsync 2>/dev/null
echo 3 >/proc/sys/vm/drop_caches
for copy in a b c; do sha256sum <$copy | cmp - same || echo DIFFERENT; done
rm a b c
for i in $(seq 40); do echo $i >safe-$i; done
dd if=/dev/urandom of=safe bs=1M count=4 2>/dev/null; sync; sha256sum <safe >sum; sync
echo COPIED
n=0
while :; do
  for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=w$i bs=64k count=10 2>/dev/null; mv w$i v$i; rm -f v$((i - 1)); done
  [ $((n % 2)) = 0 ] && sync
  echo "WRITING $((n += 1))"
done
`
/** What the initramfs has, as a system on the disk. */
const INSTALL = `
mkdir /mnt; modprobe ext4; mount -t ext4 /dev/nvme0n1 /mnt && cp -a /bin /sbin /usr /etc /lib* /mnt
mkdir -p /mnt/dev /mnt/proc /mnt/sys /mnt/run /mnt/tmp /mnt/root
rm -f /mnt/sbin/init; echo "$1" >/mnt/sbin/init; chmod 755 /mnt/sbin/init; umount /mnt && echo INSTALLED
`

describe.skipIf(!process.env['NONROOT_DEBIAN'])(
  'a root file system on an assigned disk',
  { timeout: 1_500_000 },
  () => {
    it('is used, killed while it is written, and clean', async () => {
      mkdirSync(join(folder, 'empty'))
      const made = await spawnCli(['image', 'disk', '--from', join(folder, 'empty'), '--size', '128MiB', disk])
      expect(made.status, made.err).toBe(0)
      writeFileSync(
        stack,
        JSON.stringify({
          apiVersion: 'nonroot/v1',
          extends: join(import.meta.dirname, '../../../../stacks/kvm-like.yaml'),
          host: { devices: [{ kind: 'nvme', at: '01:00.0', image: disk }] },
          devices: [{ kind: 'pci-passthrough', use: '@nonroot/io-pci-passthrough', host: '01:00.0' }],
        }),
      )
      const guest = ['run', stack, ...(await guestOf('cloud'))]
      const installed = await spawnCli([...guest, '--timeout', '8m', '--', 'sh', '-c', INSTALL, 'sh', INIT], { env })
      expect(installed, installed.err).toMatchObject({ status: 0, out: 'INSTALLED\n' })

      const cmdline = ['--cmdline', 'console=ttyS0 quiet root=/dev/nvme0n1 rw']
      const boot = async (use: (console: GuestConsole) => Promise<void>): Promise<void> => {
        const console = new GuestConsole([...guest, ...cmdline], env)
        try {
          await use(console)
        } finally {
          await console.kill()
        }
      }
      await boot(async (console) => {
        await console.expect(/ROOT \/dev\/nvme0n1 ext4/, SECONDS)
        expect(await console.expect(/COPIED/, SECONDS)).not.toContain('DIFFERENT')
        await console.expect(/WRITING 6/, SECONDS)
      })
      const killed = join(folder, 'killed.img')
      copyFileSync(disk, killed)
      expect(fsck(killed)).toEqual({ replayed: true, wrong: [] })

      // Not the copy: the guest's own driver plays the journal back.
      await boot(async (console) => {
        await console.expect(/SAFE 40/, SECONDS)
        expect(await console.end()).toBe(0)
      })
      expect(fsck(disk)).toEqual({ replayed: false, wrong: [] })
    })
  },
)
