/** What firmware finds in its machine: the files of fw_cfg, read by a firmware of a few bytes. */

import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { folderWith, spawnCli } from '../testing/cli.ts'
import { firmwareImage } from '../testing/guests.ts'

let folder: string
let remove: () => void
beforeAll(async () => ({ folder, remove } = await folderWith({})))
afterAll(() => remove())

/** Sends an item of fw_cfg, byte by byte, to COM1 and ends with status 0. */
const sendItem = (key: number, length: number): number[] => [
  ...[0xba, 0x10, 0x05, 0xb8, key & 0xff, key >> 8, 0xef, 0x42, 0xb9, length & 0xff, length >> 8], // select; DX: the data port
  ...[0xec, 0x89, 0xd3, 0xba, 0xf8, 0x03, 0xee, 0x89, 0xda, 0xe2, 0xf5], // IN, OUT, LOOP
  ...[0xba, 0xf4, 0x00, 0x66, 0xb8, 0x00, 0x00, 0x52, 0x4e, 0x66, 0xef, 0xf4],
]
const DIRECTORY = 0x19

describe('firmware', { timeout: 60_000 }, () => {
  it.each(['ept', 'shadow'])('finds our ACPI tables and the script that links them: %s', async (strategy) => {
    const image = join(folder, 'firmware.bin')
    await writeFile(image, firmwareImage(sendItem(DIRECTORY, 4 + 64 * 8)))
    const stack = join(folder, 'stack.yaml')
    const kvmLike = join(import.meta.dirname, '../../../../stacks/kvm-like.yaml')
    await writeFile(
      stack,
      JSON.stringify({ apiVersion: 'nonroot/v1', extends: kvmLike, boot: { firmware: { image } } }),
    )
    const { status, out, err } = await spawnCli(['run', stack, '--set', `stack.paging.strategy=${strategy}`])
    expect([status, err]).toEqual([0, ''])
    for (const name of ['etc/acpi/rsdp', 'etc/acpi/tables', 'etc/table-loader', 'etc/e820']) expect(out).toContain(name)
  })
})
