/**
 * A whole Debian on a disk: made, booted with systemd, logged into, used, killed, checked. Takes an hour, and the network and a bootstrap tool the
 * first time: NONROOT_DEBIAN=1 npx vitest run src/run/debian-disk.test.ts
 */

import { spawnSync } from 'node:child_process'
import { appendFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'
import { openFileStore } from '@nonroot/host-node'
import { createQcow2 } from '@nonroot/image'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'
import { GuestConsole } from '../testing/console.ts'
import { fsck as fsckRaw, type FsckResult } from '../testing/fsck.ts'

const env = { NONROOT_CACHE: process.env['NONROOT_CACHE'] ?? join(tmpdir(), 'nonroot-image-tests') }
const BOOT_SECONDS = 1800
const HOURS = 3_600_000

let image: { disk: string; uuid: string; release: string }
let folder: string

/** A disk of its own over the one that was made: qcow2, as long as the test. */
async function overlay(name: string, where = folder): Promise<string> {
  const file = join(where, `${name}.qcow2`)
  writeFileSync(file, '')
  const store = await openFileStore(file)
  const base = spawnSync('stat', ['-c', '%s', image.disk], { encoding: 'utf8' })
  await createQcow2(store, {
    size: Number(base.stdout),
    backing: { file: relative(where, image.disk), format: 'raw' },
  })
  await store.close()
  return file
}

function stack(name: string, io: object, device: object): string {
  const file = join(folder, `${name}.yaml`)
  const text = {
    apiVersion: 'nonroot/v1',
    extends: join(import.meta.dirname, '../../../../stacks/kvm-like.yaml'),
    stack: { io: [{ use: '@nonroot/io-emulated' }, { use: '@nonroot/io-virtio', ...io }] },
    machine: { memory: '1 GiB' },
    devices: [device],
  }
  writeFileSync(file, JSON.stringify(text))
  return file
}

function fsck(qcow2: string): FsckResult {
  const image = spawnSync('qemu-img', ['check', '-q', qcow2], { encoding: 'utf8' })
  // Leaked clusters (3) cost room, no more.
  if (image.status !== 0 && image.status !== 3) throw new Error(`qemu-img check: ${image.stdout}${image.stderr}`)
  const raw = join(folder, 'fsck.raw')
  const converted = spawnSync('qemu-img', ['convert', '-O', 'raw', qcow2, raw], { encoding: 'utf8' })
  if (converted.status !== 0) throw new Error(`qemu-img: ${converted.stderr}`)
  const result = fsckRaw(raw)
  rmSync(raw)
  return result
}

const HELLO = `cat >hello.c <<'END'
#include <stdio.h>
int main(void) { printf("hello from gcc %d\\n", __GNUC__); return 3; }
END
gcc -O2 -o hello hello.c && ./hello`

const CHECKSUMS = `dd if=/dev/urandom of=a bs=1M count=24 status=none && sync && sha256sum <a >sum
dd if=a of=b bs=64k oflag=direct status=none && dd if=b of=c bs=4k conv=fsync status=none
echo 3 >/proc/sys/vm/drop_caches; for f in a b c; do sha256sum <$f | cmp - sum || exit 1; done; echo same`

/** What a Debian says at these levels that is not about what it runs on, or is known (docs/acceptance.md). */
const KNOWN = [
  // The LPC bridge has neither GPIO nor a watchdog.
  /^lpc_ich 0000:00:1f\.0: No MFD cells added$/,
  // How Debian's kernel was configured.
  /^device-mapper: core: CONFIG_IMA_DISABLE_HTABLE is disabled\./,
  // A host that had other things to do.
  /^hrtimer: interrupt took \d+ ns$/,
]
async function warnings(guest: GuestConsole): Promise<string[]> {
  const { out } = await guest.shell('dmesg --notime --level warn,err,crit,alert,emerg')
  return out.split('\n').filter((line) => line !== '' && !KNOWN.some((known) => known.test(line)))
}

async function useIt(guest: GuestConsole): Promise<void> {
  await guest.logIn(BOOT_SECONDS)
  // First: as long as it boots, it says so in between.
  expect((await guest.shell('systemctl is-system-running --wait', 900)).out).toMatch(/(^|\n)running\n$/)
  expect(await guest.shell('cd; uname -r; cat /etc/hostname')).toEqual({
    status: 0,
    out: `${image.release}\nnonroot\n`,
  })
  expect((await guest.shell('apt-get --version')).out).toMatch(/^apt 2\.\d+/)
  expect(await guest.shell("python3 -c 'print(1+1)'")).toEqual({ status: 0, out: '2\n' })
  expect(await guest.shell(HELLO)).toEqual({ status: 3, out: 'hello from gcc 12\n' })
  expect(await guest.shell(`( ${CHECKSUMS} )`, 900)).toEqual({ status: 0, out: 'same\n' })
  expect(await guest.shell('systemctl --failed --no-legend --no-pager')).toEqual({ status: 0, out: '' })
  expect(await warnings(guest)).toEqual([])
}

const SAFE_IS_THERE = 'sha256sum <safe | cmp - sum && cat safe-* | wc -l'

/** Some files that are said to be safe, then many that are not; and the power fails. */
async function killWhileWriting(guest: GuestConsole): Promise<void> {
  const safe = await guest.shell(
    'cd; for i in $(seq 40); do echo $i >safe-$i; done; dd if=/dev/urandom of=safe bs=1M count=8 status=none; sha256sum <safe >sum; sync',
  )
  expect(safe.status).toBe(0)
  await guest.shell(
    '(while :; do for i in 1 2 3 4 5 6; do dd if=/dev/urandom of=w$i bs=64k count=40 status=none; mv w$i v$i; rm -f v$((i-1)); done; sync; done) &',
  )
  await new Promise((resolve) => setTimeout(resolve, 20_000))
  await guest.kill()
}

describe.skipIf(!process.env['NONROOT_DEBIAN'])('Debian on a disk', { timeout: 2 * HOURS }, () => {
  beforeAll(async () => {
    const made = await spawnCli(['image', 'debian', '--rootfs', '--include', 'gcc', 'libc6-dev', 'python3', '--json'], {
      env,
    })
    expect(made.status, made.err).toBe(0)
    image = JSON.parse(made.out) as typeof image
    folder = mkdtempSync(join(dirname(image.disk), 'test-'))
  }, HOURS)
  afterAll(() => folder && rmSync(folder, { recursive: true, force: true }))

  it.each([
    { name: 'virtio-pci', io: {}, kind: 'virtio-blk' },
    { name: 'virtio-pci-packed', io: { ring: 'packed' }, kind: 'virtio-blk' },
    { name: 'virtio-mmio', io: { transport: 'mmio' }, kind: 'virtio-blk' },
    { name: 'ahci', io: {}, kind: 'ahci' },
  ])(
    'boots with systemd, is used, is killed while it writes, recovers and powers off: $name',
    async ({ name, io, kind }) => {
      const disk = await overlay(name)
      const file = stack(name, io, { kind, image: disk, backingFiles: 'anywhere' })
      const kernel = ['--kernel', join(folder, 'vmlinux'), '--initrd', join(folder, 'initrd')]
      for (const part of ['vmlinux', 'initrd'])
        spawnSync('debugfs', ['-R', `dump /boot/nonroot/${part}-${image.release} ${join(folder, part)}`, image.disk])
      const cmdline = ['--cmdline', `console=ttyS0 cryptomgr.notests root=UUID=${image.uuid} ro`]
      const boot = async (use: (guest: GuestConsole) => Promise<void>): Promise<void> => {
        const guest = new GuestConsole(['run', file, ...kernel, ...cmdline], env)
        try {
          await use(guest)
        } finally {
          await guest.kill()
          appendFileSync(join(tmpdir(), `nonroot-debian-disk-${name}.log`), guest.log)
        }
      }
      await boot(async (guest) => {
        await useIt(guest)
        await killWhileWriting(guest)
      })
      expect(fsck(disk).wrong).toEqual([])
      await boot(async (guest) => {
        await guest.logIn(BOOT_SECONDS)
        await guest.shell('systemctl is-system-running --wait', 900)
        expect(await guest.shell(SAFE_IS_THERE)).toEqual({ status: 0, out: '40\n' })
        guest.type('poweroff\n')
        expect(await guest.end()).toBe(0)
      })
      expect(fsck(disk)).toEqual({ replayed: false, wrong: [] })
    },
  )

  it('run --disk boots it in one command; killed while it writes, nothing is lost that was said to be safe', async () => {
    // A backing file may be beside the disk without anybody saying so.
    const disk = await overlay('killed', dirname(image.disk))
    try {
      const guest = new GuestConsole(['run', '--memory', '1G', '--disk', disk], env)
      await guest.logIn(BOOT_SECONDS)
      await killWhileWriting(guest)
      expect(fsck(disk).wrong).toEqual([])
      const safe = await spawnCli(['run', '--disk', disk, '--', 'sh', '-c', `cd /root; ${SAFE_IS_THERE}`], { env })
      expect(safe).toMatchObject({ status: 0, out: '40\n' })
    } finally {
      rmSync(disk, { force: true })
    }
  })

  it('says what it cannot boot', async () => {
    const empty = join(folder, 'empty.img')
    writeFileSync(empty, new Uint8Array(1 << 20))
    const { status, err } = await spawnCli(['run', '--disk', empty, '--', 'true'], { env })
    expect([status, err]).toEqual([4, expect.stringContaining('nonroot: cannot mount /dev/vda')])
  })
})
