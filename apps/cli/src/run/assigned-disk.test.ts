/**
 * One disk three ways under Debian's cloud kernel, by one line of the stack file: emulated, by virtio, assigned. The guest's script is the same. With EPT,
 * and assigned with shadow paging. Takes
 * minutes, and the network the first time: NONROOT_DEBIAN=1 npx vitest run src/run/assigned-disk.test.ts
 */

import { createHash, randomBytes } from 'node:crypto'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'
import { debianEnv as env, guestOf } from '../testing/debian.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-assigned-disk-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const sha256 = (bytes: Uint8Array): string => createHash('sha256').update(bytes).digest('hex')
const KIB = 1024

/** Reads all of the disk, writes 512 KiB and reads it back, then 4096 reads of 4 KiB past the page cache for each of `PASSES`. */
const script = (passes: number): string => `
for d in /sys/block/nvme* /sys/block/vd*; do [ -e $d ] && disk=/dev/\${d##*/}; done
sha256sum < $disk
dd if=/dev/urandom of=/tmp/random bs=64k count=8 2>/dev/null
dd if=/tmp/random of=$disk bs=4k seek=100 conv=fsync 2>/dev/null
echo 3 > /proc/sys/vm/drop_caches
sha256sum < /tmp/random
dd if=$disk bs=4k skip=100 count=128 2>/dev/null | sha256sum
for i in $(seq ${passes}); do dd if=$disk of=/dev/null bs=4k count=4096 iflag=direct 2>/dev/null; done
dmesg -r | grep '^<[0-4]>' | grep -iE 'nvme|virtio|vd[a-z]|I/O error'
`

const WAYS = {
  emulated: '{ kind: nvme, image: ./disk.img }',
  virtio: '{ kind: virtio-blk, image: ./disk.img }',
  assigned: '{ kind: pci-passthrough, use: "@nonroot/io-pci-passthrough", host: "01:00.0" }',
} as const
const CASES = [
  { way: 'emulated', paging: 'ept' },
  { way: 'virtio', paging: 'ept' },
  { way: 'assigned', paging: 'ept' },
  { way: 'assigned', paging: 'shadow' },
] as const
/** Exits at registers: of EPT they are violations, of shadow paging page faults. */
const AT_REGISTERS = { ept: 'eptViolation', shadow: 'exceptionOrNmi' } as const

async function run(device: string, paging: string, passes: number) {
  const disk = randomBytes(16 * KIB * KIB)
  writeFileSync(join(folder, 'disk.img'), disk)
  const stack = `apiVersion: nonroot/v1
extends: ${join(import.meta.dirname, '../../../../stacks/kvm-like.yaml')}
stack: { paging: { strategy: ${paging} } }
${device === WAYS.assigned ? 'host: { devices: [{ kind: nvme, at: "01:00.0", image: ./disk.img }] }' : ''}
devices:
  - ${device}
`
  writeFileSync(join(folder, 'stack.yaml'), stack)
  const command = [...(await guestOf('cloud')), '--stats', 'json', '--timeout', '10m', '--', 'sh', '-c', script(passes)]
  const { out, err } = await spawnCli(['run', join(folder, 'stack.yaml'), ...command], { env })
  const lines = out
    .trim()
    .split('\n')
    .map((line) => line.trim())
  expect(lines[0], out + err).toBe(`${sha256(disk)}  -`)
  const written = `${sha256(readFileSync(join(folder, 'disk.img')).subarray(400 * KIB, 912 * KIB))}  -`
  expect(lines.slice(1)).toEqual([written, written])
  const { metrics } = JSON.parse(err.slice(err.indexOf('{"')).split('\n')[0]!) as {
    metrics: { name: string; value: number }[]
  }
  return (name: string): number => metrics.find((metric) => metric.name === name)?.value ?? 0
}

describe.skipIf(!process.env['NONROOT_DEBIAN'])('one disk, one script', { timeout: 1_500_000 }, () => {
  it.each(CASES)('$way, $paging', async ({ way, paging }) => {
    const device = WAYS[way]
    const [few, many] = [await run(device, paging, 0), await run(device, paging, 3)]
    const more = (name: string): number => many(name) - few(name)
    const requests = 3 * 4096
    const ofRegisters = more(`vcpu0.exits.${AT_REGISTERS[paging]}`)
    console.log(
      `${way}, ${paging}: ${requests} requests, ${ofRegisters} exits at registers, ${more('vcpu0.exits')} in all, ${more('device.interrupts.delivered')} interrupts`,
    )
    if (way === 'assigned') {
      // No request makes the guest exit at the device's registers. What is left are timers and ends of interrupts.
      // Shadow paging has faults of the programs as well.
      expect(Math.abs(ofRegisters)).toBeLessThan(requests / (paging === 'ept' ? 100 : 10))
      expect(more('vcpu0.exits') / requests).toBeLessThan(1)
    } else expect(ofRegisters).toBeGreaterThan(requests / 100)
  })
})
