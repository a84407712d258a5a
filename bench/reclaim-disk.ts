/**
 * The cases of VSwapper (ASPLOS 2014): a Debian VM reads a disk into its page cache, more than its host has memory for, and reads it again. How many
 * pages were written to the swap file, how many came back, and how often a vCPU waited: with and without what this repository does about it.
 *
 *     npm run bench:reclaim-disk -- [--memory 256] [--host 160] [--disk 128]
 */
import { randomFillSync } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Shell, startReclaimHost } from './reclaim-host.ts'

const { values } = parseArgs({
  options: {
    memory: { type: 'string', default: '256' },
    host: { type: 'string', default: '160' },
    disk: { type: 'string', default: '128' },
  },
})
const folder = mkdtempSync(join(tmpdir(), 'nonroot-disk-'))
const image = join(folder, 'disk.img')

/** Each step's command, which ends with a line of its own. */
const STEPS: Readonly<Record<string, string>> = {
  'reads the disk': 'sha256sum </dev/vda',
  'reads it again': 'sha256sum </dev/vda',
  'overwrites its first half': `dd if=/dev/zero of=/dev/vda bs=1M count=${Number(values.disk) / 2} conv=fsync 2>/dev/null; sha256sum </dev/vda`,
  'fills memory of a program': `head -c ${Number(values.disk) / 2}M /dev/zero | tail -c 1 | sha256sum`,
}
const COUNTERS = ['dropped', 'compressed', 'written', 'zeros', 'faults', 'refaults', 'stalls'] as const

async function measure(dropUnchanged: boolean): Promise<string[]> {
  writeFileSync(image, randomFillSync(new Uint8Array(Number(values.disk) * 2 ** 20)))
  const swap = { file: join(folder, 'swap'), size: '1 GiB', dropUnchanged }
  const host = await startReclaimHost({
    ...{ vms: 1, memory: Number(values.memory), host: Number(values.host), clock: 'wall' },
    reclaim: [{ use: '@nonroot/mem-reclaim', policy: 'swap', ...swap }],
    devices: [{ kind: 'virtio-blk', image }],
  })
  const { hypervisor } = host
  const shell = new Shell()
  const vm = await hypervisor.createVm({ name: 'one', console: shell })
  const end = vm.run()
  await shell.expect(/_nonroot:begin/)
  const sums: string[] = []
  const counters = (): number[] =>
    COUNTERS.map((counter) => hypervisor.samples().find((one) => one.name.endsWith(`swap.${counter}`))?.value ?? 0)
  let before = counters()
  let step = 0
  for (const [name, command] of Object.entries(STEPS)) {
    const cpu = process.cpuUsage()
    shell.send(`${command}; echo step${step}=$?\n`)
    await shell.expect(new RegExp(`step${step}=\\d`))
    step++
    const { user, system } = process.cpuUsage(cpu)
    const now = counters()
    console.log(
      `| ${dropUnchanged ? 'dropped' : 'written'} | ${name} | ${now.map((value, index) => value - before[index]!).join(' | ')} | ${((user + system) / 1e6).toFixed(1)} |`,
    )
    before = now
    sums.push([...shell.text.matchAll(/\b([\da-f]{64})\b/g)].at(-1)?.[1] ?? shell.text.slice(-300))
  }
  vm.stop()
  await end
  await host.dispose()
  return sums
}

console.log(`| unchanged pages are | the guest | ${COUNTERS.join(' | ')} | processor time, s |`)
console.log(`|---|---|${COUNTERS.map(() => '---:|').join('')}---:|`)
let isRight = true
for (const dropUnchanged of [false, true]) {
  const sums = await measure(dropUnchanged)
  if (sums[0] !== sums[1] || !/^[\da-f]{64}$/.test(sums[0]!)) {
    isRight = false
    console.log('the guest read something else:', sums)
  }
}
rmSync(folder, { recursive: true })
process.exit(isRight ? 0 : 1)
