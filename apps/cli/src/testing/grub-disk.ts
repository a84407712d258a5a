/** A disk that GRUB boots Debian from, behind a BIOS or UEFI: for tests, by the tools of Debian's grub-pc-bin, grub-efi-amd64-bin, grub-common and `mtools`. Not part of the package. */

import { spawnSync } from 'node:child_process'
import { copyFileSync, openSync, closeSync, readFileSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'

const MIB = 1 << 20
const SECTOR = 512
/** The partition begins here; GRUB's core image lies in the gap before it. */
const PARTITION = MIB
const PARTITION_SIZE = 96 * MIB
/** A sector of the gap that no one uses. */
export const SCRATCH_SECTOR = 2000
const BOOT_CODE = 440
const MODULES = 'part_msdos fat normal linux configfile search search_label serial terminal echo boot'.split(' ')
const LABEL = 'NONROOT'

export interface GrubDisk {
  readonly folder: string
  readonly name: string
  readonly kernel: string
  readonly initrd: string
  readonly cmdline: string
}

function tool(program: string, ...args: string[]): void {
  const { status, stderr, error } = spawnSync(program, args, { encoding: 'utf8' })
  if (status !== 0)
    throw new Error(
      `${program}: ${error?.message ?? stderr} (apt-get install grub-pc-bin grub-efi-amd64-bin grub-common mtools)`,
    )
}

export function makeGrubDisk({ folder, name, kernel, initrd, cmdline }: GrubDisk): string {
  const at = (file: string): string => join(folder, `${name}-${file}`)
  const partition = at('partition')
  writeFileSync(partition, '')
  truncateSync(partition, PARTITION_SIZE)
  tool('mformat', '-i', partition, '-F', '-v', LABEL, '::')
  tool('mmd', '-i', partition, '::/grub', '::/EFI', '::/EFI/BOOT')
  const put = (file: string, to: string): void => tool('mcopy', '-i', partition, file, `::${to}`)
  put(kernel, '/vmlinuz')
  put(initrd, '/initrd')
  writeFileSync(
    at('grub.cfg'),
    `serial --unit=0 --speed=115200
terminal_output serial
set timeout=0
menuentry debian {
  echo GRUB starts Debian
  linux /vmlinuz ${cmdline}
  initrd /initrd
}
`,
  )
  put(at('grub.cfg'), '/grub/grub.cfg')
  writeFileSync(
    at('early.cfg'),
    `search --label --set=root ${LABEL}\nset prefix=($root)/grub\nconfigfile /grub/grub.cfg\n`,
  )
  tool('grub-mkimage', '-O', 'x86_64-efi', '-o', at('efi'), '-c', at('early.cfg'), '-p', '/grub', ...MODULES)
  put(at('efi'), '/EFI/BOOT/BOOTX64.EFI')
  tool('grub-mkimage', '-O', 'i386-pc', '-o', at('core'), '-p', '(hd0,msdos1)/grub', 'biosdisk', ...MODULES)

  const disk = join(folder, `${name}.img`)
  copyFileSync('/usr/lib/grub/i386-pc/boot.img', disk)
  truncateSync(disk, PARTITION + PARTITION_SIZE)
  const file = openSync(disk, 'r+')
  const write = (bytes: Uint8Array, position: number): void => void writeSync(file, bytes, 0, bytes.length, position)
  const core = readFileSync(at('core'))
  if (SECTOR + core.length > SCRATCH_SECTOR * SECTOR) throw new Error(`GRUB's core image has ${core.length} bytes`)
  write(core, SECTOR)
  write(readFileSync(partition), PARTITION)
  // One partition, active, an EFI system partition; the rest of the boot code's sector is the table's.
  const table = new DataView(new ArrayBuffer(SECTOR - BOOT_CODE))
  table.setUint8(6, 0x80)
  table.setUint8(6 + 4, 0xef)
  table.setUint32(6 + 8, PARTITION / SECTOR, true)
  table.setUint32(6 + 12, PARTITION_SIZE / SECTOR, true)
  table.setUint16(SECTOR - BOOT_CODE - 2, 0xaa55, true)
  write(new Uint8Array(table.buffer), BOOT_CODE)
  closeSync(file)
  return disk
}
