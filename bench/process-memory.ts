/**
 * What a process needs that runs idle Debian VMs: resident memory by mapping (`/proc/PID/smaps`), for one VM and for several of one host.
 *
 *     npm run bench:process-memory -- [--vms 1,2,4] [--memory 128] [--reclaim]
 *
 * Each run is `nonroot run` of a file with so many VMs, measured when the process has been idle for a minute. `--reclaim`: under @nonroot/mem-reclaim, in one group.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

const { values } = parseArgs({
  options: {
    vms: { type: 'string', default: '1,2,4' },
    memory: { type: 'string', default: '128' },
    reclaim: { type: 'boolean', default: false },
  },
})
const POLL_MS = 5000
/** A process whose processor time is below this part of a poll is idle. */
const IDLE_PART = 0.1
const IDLE_POLLS = 12
const MOST_POLLS = 120
const MIB = 2 ** 20
/** An arena of the C library lies at a multiple of this, a page of V8's heap at a multiple of the other. */
const ARENA = 64 * MIB
const HEAP_PAGE = 256 * 1024
/** WebAssembly memories are reserved for their maximum, at least this. */
const RESERVED = 256 * MIB

const KINDS = ['host memory', 'program', 'compiled code', 'C library heap', 'V8 heap', 'other'] as const
type Kind = (typeof KINDS)[number]

function kindOf(start: number, end: number, rights: string, path: string): Kind {
  if (path.startsWith('/')) return 'program'
  if (path === '[heap]') return 'C library heap'
  if (rights.includes('x')) return 'compiled code'
  if (end - start >= RESERVED) return 'host memory'
  if (start % ARENA === 0) return 'C library heap'
  return start % HEAP_PAGE === 0 ? 'V8 heap' : 'other'
}

function residentBytes(pid: number): Record<Kind, number> {
  const bytes = Object.fromEntries(KINDS.map((kind) => [kind, 0])) as Record<Kind, number>
  let kind: Kind = 'other'
  for (const line of readFileSync(`/proc/${pid}/smaps`, 'utf8').split('\n')) {
    const mapping = /^([\da-f]+)-([\da-f]+) (\S+) \S+ \S+ \S+\s*(.*)/.exec(line)
    if (mapping) kind = kindOf(parseInt(mapping[1]!, 16), parseInt(mapping[2]!, 16), mapping[3]!, mapping[4]!)
    else if (line.startsWith('Rss:')) bytes[kind] += parseInt(line.slice(4), 10) * 1024
  }
  return bytes
}

/** Clock ticks of 10 ms, user and system. */
function ticksOf(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return Number(fields[11]) + Number(fields[12])
}
const sleep = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms))

async function measure(count: number): Promise<{ bytes: Record<Kind, number>; frames: number; seconds: number }> {
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-process-'))
  const file = join(folder, 'fleet.yaml')
  const vms = Array.from({ length: count }, (_, index) => ({ name: `vm${index}` }))
  writeFileSync(
    file,
    JSON.stringify({
      apiVersion: 'nonroot/v1',
      extends: join(import.meta.dirname, '../stacks/kvm-like.yaml'),
      machine: { memory: `${values.memory} MiB` },
      ...(values.reclaim
        ? { stack: { reclaim: [{ use: '@nonroot/mem-reclaim' }] }, reclaim: { group: 'debian' } }
        : {}),
      vms,
    }),
  )
  const command = join(import.meta.dirname, '../apps/cli/bin/nonroot.js')
  const child = spawn(process.execPath, [command, 'run', file, '--stats=json'], { stdio: ['ignore', 'ignore', 'pipe'] })
  const errors: Buffer[] = []
  child.stderr.on('data', (chunk: Buffer) => errors.push(chunk))
  const ended = new Promise<void>((resolve) => void child.on('close', () => resolve()))
  const pid = child.pid!
  for (let [poll, idle, last] = [0, 0, 0]; poll < MOST_POLLS && idle < IDLE_POLLS; poll++) {
    await sleep(POLL_MS)
    if (child.exitCode !== null) throw new Error(`nonroot run has ended: ${Buffer.concat(errors).toString()}`)
    const ticks = ticksOf(pid)
    idle = poll > 4 && (ticks - last) * 10 < POLL_MS * IDLE_PART ? idle + 1 : 0
    last = ticks
  }
  const bytes = residentBytes(pid)
  const seconds = ticksOf(pid) / 100
  child.kill('SIGINT')
  await sleep(1000)
  child.kill('SIGINT')
  await ended
  rmSync(folder, { recursive: true })
  const text = Buffer.concat(errors).toString()
  const samples = text.matchAll(/"name":"vm\.residentFrames"[^}]*"value":(\d+)/g)
  const frames = [...samples].reduce((sum, [, value]) => sum + Number(value), 0)
  if (frames === 0) console.error(text.slice(-500))
  return { bytes, frames, seconds }
}

console.log(`| VMs | ${KINDS.join(' | ')} | all, MiB | pages of the guests with a frame, MiB | processor time, s |`)
console.log(`|---|${KINDS.map(() => '---:|').join('')}---:|---:|---:|`)
for (const count of values.vms.split(',').map(Number)) {
  const { bytes, frames, seconds } = await measure(count)
  const mib = (value: number): string => (value / MIB).toFixed(0)
  const all = KINDS.reduce((sum, kind) => sum + bytes[kind], 0)
  console.log(
    `| ${count} | ${KINDS.map((kind) => mib(bytes[kind])).join(' | ')} | ${mib(all)} | ${mib(frames * 4096)} | ${seconds.toFixed(0)} |`,
  )
}
