/**
 * The same disk image under an emulated controller, virtio with each ring, and QEMU's TCG with virtio-blk, on the same Debian kernel: throughput,
 * VM exits and processor time for a MiB.
 *
 *     npm run bench:disk -- [--machines ahci,split] [--size MIB] [--requests N] [--passes N] [--runs N] [--json FILE] [--plot FILE.svg] [--limit SECONDS]
 *
 * What was read is checked by sums, what was written by looking at the image afterwards. Figures are those of the fastest run of each test.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { diskGuest } from './disk-guest.ts'
import { checkImage, writeImage } from './disk-image.ts'
import { diskPlot } from './disk-plot.ts'
import { diskTables } from './disk-report.ts'
import { measure, type DiskResult } from './disk-run.ts'
import { isInstalled } from './machine.ts'

const say = (text: string): void => void process.stderr.write(`${text}\n`)
const { values } = parseArgs({
  options: {
    machines: { type: 'string', default: '' },
    size: { type: 'string', default: '64' },
    requests: { type: 'string', default: '8192' },
    passes: { type: 'string', default: '8' },
    runs: { type: 'string', default: '1' },
    json: { type: 'string' },
    plot: { type: 'string' },
    limit: { type: 'string', default: '300' },
  },
})
const [size, requests, passes, runs, limit] = [
  values.size,
  values.requests,
  values.passes,
  values.runs,
  values.limit,
].map(Number) as [number, number, number, number, number]
if (![size, requests, passes, runs, limit].every((number) => Number.isInteger(number) && number > 0))
  throw new Error('--size, --requests, --passes, --runs and --limit are positive numbers')
if (requests > size * 256) throw new Error(`--requests ${requests}: a disk of ${size} MiB has ${size * 256} blocks`)

const QEMU = 'qemu-system-x86_64'
const guest = await diskGuest([size, requests, passes], say)
const folder = mkdtempSync(join(tmpdir(), 'nonroot-disk-'))
const image = join(folder, 'disk.img')
process.on('exit', () => rmSync(folder, { recursive: true, force: true }))

/** A command for each machine. */
const quote = (word: string): string => `'${word.replaceAll("'", `'\\''`)}'`
const PASSTHROUGH = { kind: 'pci-passthrough', use: '@nonroot/io-pci-passthrough' }
const ours = (name: string, kind: string, ring: object, assigned = false): string => {
  const stack = {
    apiVersion: 'nonroot/v1',
    extends: fileURLToPath(new URL('../stacks/kvm-like.yaml', import.meta.url)),
    stack: { io: [{ use: '@nonroot/io-emulated' }, { use: '@nonroot/io-virtio', ...ring }] },
    ...(assigned ? { host: { devices: [{ kind, image, at: '01:00.0' }] } } : {}),
    devices: [assigned ? { ...PASSTHROUGH, host: '01:00.0' } : { kind, image }],
    boot: { linux: { kernel: guest.vmlinux, initrd: guest.initrd, cmdline: guest.cmdline } },
  }
  const file = join(folder, `${name}.json`)
  writeFileSync(file, JSON.stringify(stack))
  const program = fileURLToPath(new URL('disk-vm.ts', import.meta.url))
  return [process.execPath, '--conditions=@nonroot/source', program, file].map(quote).join(' ')
}
const qemu = [
  ...[QEMU, '-M', 'q35', '-accel', 'tcg', '-cpu', 'max', '-m', '512', '-nographic', '-no-reboot'],
  ...['-kernel', guest.kernel, '-initrd', guest.initrd, '-append', guest.cmdline],
  ...['-drive', `file=${image},format=raw,if=none,id=disk`, '-device', 'virtio-blk-pci,drive=disk'],
]
const all: readonly { name: string; says: string; command: () => string }[] = [
  { name: 'qemu', says: 'QEMU TCG, virtio-blk', command: () => qemu.map(quote).join(' ') },
  { name: 'ide', says: 'emulated: IDE', command: () => ours('ide', 'ide', {}) },
  { name: 'ahci', says: 'emulated: AHCI', command: () => ours('ahci', 'ahci', {}) },
  { name: 'nvme', says: 'emulated: NVMe', command: () => ours('nvme', 'nvme', {}) },
  { name: 'assigned', says: 'assigned: NVMe', command: () => ours('assigned', 'nvme', {}, true) },
  {
    name: 'split-plain',
    says: 'virtio, split, no EVENT_IDX',
    command: () => ours('split-plain', 'virtio-blk', { ring: 'split', eventIndex: false }),
  },
  { name: 'split', says: 'virtio, split', command: () => ours('split', 'virtio-blk', { ring: 'split' }) },
  {
    name: 'packed-plain',
    says: 'virtio, packed, no EVENT_IDX',
    command: () => ours('packed-plain', 'virtio-blk', { ring: 'packed', eventIndex: false }),
  },
  { name: 'packed', says: 'virtio, packed', command: () => ours('packed', 'virtio-blk', { ring: 'packed' }) },
]
const wanted = values.machines === '' ? all.map(({ name }) => name) : values.machines.split(',')
for (const name of wanted) {
  if (!all.some((machine) => machine.name === name))
    throw new Error(`no machine ${name}: there are ${all.map((machine) => machine.name).join(', ')}`)
}
const chosen = all.filter(({ name }) => wanted.includes(name) && (name !== 'qemu' || isInstalled(QEMU)))
if (wanted.includes('qemu') && chosen[0]?.name !== 'qemu') say(`${QEMU} is not installed: nothing to compare with`)

const results: DiskResult[] = chosen.map(({ name, says }) => ({ name, says, tests: {} }))
let wrong = false
for (let run = 1; run <= runs; run++) {
  for (const [index, { name, command }] of chosen.entries()) {
    say(`run ${run} of ${runs}: ${name}`)
    writeImage(image, size)
    const result = results[index]!
    const sums = await measure(command(), result, limit * 1000)
    for (const [test, { rate, exits, cpuMs }] of Object.entries(result.tests))
      say(
        `  ${test}: ${rate.toFixed(1)} MiB/s, ${exits?.toFixed(1) ?? 'no count of'} exits and ${cpuMs.toFixed(2)} ms a MiB`,
      )
    const problem = result.problem ?? checkImage(image, { size, requests, passes, sums })
    if (problem === undefined) continue
    say(`${name}: ${problem}`)
    result.problem = problem
    wrong = true
  }
}

console.log(diskTables(results))
if (values.json !== undefined) {
  const processor = `${availableParallelism()} × ${cpus()[0]?.model ?? 'unknown'}`
  const report = { version: 1, runs, size, requests, passes, node: process.version, processor, results }
  writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`)
}
if (values.plot !== undefined) writeFileSync(values.plot, diskPlot(results))
if (wrong) process.exitCode = 1
