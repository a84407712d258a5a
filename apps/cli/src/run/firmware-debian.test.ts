/**
 * Debian on a disk with GRUB behind SeaBIOS and OVMF: boots, reboots, powers off, with nothing to complain of. Takes minutes, the network the first
 * time, and Debian's packages seabios, ovmf, grub-pc-bin, grub-efi-amd64-bin and mtools: NONROOT_DEBIAN=1 npx vitest run src/run/firmware-debian.test.ts
 */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'
import { debianEnv as env } from '../testing/debian.ts'
import { makeGrubDisk, SCRATCH_SECTOR } from '../testing/grub-disk.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-firmware-debian-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const SEABIOS = '/usr/share/seabios/bios-256k.bin'
const OVMF = '/usr/share/ovmf/OVMF.fd'

/** The first boot leaves a mark on the disk and reboots; the second finds it, tells what there is and powers off. */
const script = (disk: string): string => `
mark=$(dd if=/dev/${disk} bs=512 skip=${SCRATCH_SECTOR} count=1 2>/dev/null | head -c 6)
if [ "$mark" != marked ]; then
  echo first boot
  printf marked | dd of=/dev/${disk} bs=512 seek=${SCRATCH_SECTOR} conv=notrunc,fsync 2>/dev/null
  reboot -f
fi
echo second boot
dd if=/dev/${disk} of=/dev/null bs=1M count=16 2>/dev/null && echo read
grep -E 'ahci|virtio' /proc/interrupts
dmesg | grep -E 'ACPI: PM: |supports S0|ACPI: Using|MMCONFIG at'
echo complaints:
dmesg -r | grep '^<[0-4]>'
echo end of complaints
poweroff -f`

const CASES = [
  { firmware: SEABIOS, flavour: 'generic', kind: 'ahci', disk: 'sda', more: '', interrupts: /PCI-MSI.*ahci/ },
  {
    firmware: SEABIOS,
    flavour: 'generic',
    kind: 'ahci',
    disk: 'sda',
    more: 'pci=nomsi',
    interrupts: /IO-APIC +\d+-fasteoi +ahci/,
  },
  {
    firmware: SEABIOS,
    flavour: 'generic',
    kind: 'ahci',
    disk: 'sda',
    more: 'pci=nomsi noapic',
    interrupts: /XT-PIC +ahci/,
  },
  {
    firmware: SEABIOS,
    flavour: 'generic',
    kind: 'ahci',
    disk: 'sda',
    more: 'pci=nomsi acpi=off reboot=k',
    interrupts: /IO-APIC +\d+-fasteoi +ahci/,
  },
  { firmware: SEABIOS, flavour: 'cloud', kind: 'virtio-blk', disk: 'vda', more: '', interrupts: /virtio/ },
  { firmware: OVMF, flavour: 'generic', kind: 'ahci', disk: 'sda', more: '', interrupts: /PCI-MSI.*ahci/ },
  {
    firmware: OVMF,
    flavour: 'generic',
    kind: 'ahci',
    disk: 'sda',
    more: 'pci=nomsi',
    interrupts: /IO-APIC +\d+-fasteoi +ahci/,
  },
  { firmware: OVMF, flavour: 'cloud', kind: 'virtio-blk', disk: 'vda', more: '', interrupts: /virtio/ },
] as const

/** Warnings that are no fault of the machine: without an I/O APIC the system sets ELCR itself; a busy host delays interrupts. */
const KNOWN = [/ACPI: setting ELCR to/, /hrtimer: interrupt took \d+ ns/]

describe.skipIf(!process.env['NONROOT_DEBIAN'])('Debian behind firmware', { timeout: 1_500_000 }, () => {
  it.each(CASES)(
    '$firmware, $flavour kernel, $kind $more',
    async ({ firmware, flavour, kind, disk, more, interrupts }) => {
      const made = await spawnCli(['image', 'debian', '--flavour', flavour, '--json'], { env })
      expect(made.status, made.err).toBe(0)
      const { kernel, initrd } = JSON.parse(made.out) as { kernel: string; initrd: string }
      const command = Buffer.from(script(disk)).toString('base64')
      const cmdline = `console=ttyS0 cryptomgr.notests ${more} nonroot.command=${command}`
      const name = `disk${CASES.findIndex((one) => one.firmware === firmware && one.more === more && one.kind === kind)}`
      const image = makeGrubDisk({ folder, name, kernel, initrd, cmdline })
      const stack = join(folder, `${name}.yaml`)
      const text = {
        apiVersion: 'nonroot/v1',
        extends: join(import.meta.dirname, '../../../../stacks/kvm-like.yaml'),
        boot: { firmware: { image: firmware } },
        devices: [{ kind, image }],
      }
      writeFileSync(stack, JSON.stringify(text))
      const { status, out, err } = await spawnCli(['run', stack, '--timeout', '20m'], { env })
      expect(out.match(/GRUB starts Debian/g), out + err).toHaveLength(2)
      expect(out).toMatch(/first boot[^]*second boot\s+read\s/)
      expect(out.slice(out.indexOf('second boot'))).toMatch(interrupts)
      const complaints = /complaints:\r?\n([^]*?)end of complaints/.exec(out)![1]!.split(/\r?\n/)
      expect(complaints.filter((line) => line !== '' && !KNOWN.some((known) => known.test(line)))).toEqual([])
      // Without ACPI the guest cannot power off: it halts.
      if (!more.includes('acpi=off')) {
        expect(out).toMatch(/supports S0 S5/)
        expect([status, err]).toEqual([0, ''])
      }
    },
  )
})
