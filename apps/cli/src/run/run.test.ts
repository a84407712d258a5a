/** `nonroot run` from outside: what reaches standard output and error, and the exit status. */

import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { folderWith, spawnCli, stackTrace } from '../testing/cli.ts'
import { Code, multibootGuest } from '../testing/guests.ts'

const hello = fileURLToPath(new URL('../../../../guests/hello/hello.elf', import.meta.url))
const demo = fileURLToPath(new URL('../../../../guests/demo/demo.elf', import.meta.url))

let folder: string
let remove: () => void
beforeAll(async () => ({ folder, remove } = await folderWith({})))
afterAll(() => remove())

async function guest(name: string, ...code: (readonly number[])[]): Promise<string> {
  const file = join(folder, `${name}.elf`)
  if (!existsSync(file)) await writeFile(file, multibootGuest(code.flat()))
  return file
}
interface TraceEvent {
  readonly ph: string
  readonly name: string
  tid?: number
  readonly ts?: number
  readonly dur?: number
  readonly args?: { readonly name: string }
}
const isText = (value: unknown): boolean => typeof value === 'string' && value !== ''
/** Microseconds. */
const isTime = (value: unknown): boolean => Number.isFinite(value) && (value as number) >= 0

const run = (kernel: string, ...more: string[]) => spawnCli(['run', '--memory', '8M', '--kernel', kernel, ...more])

describe('how a run ends', { timeout: 60_000 }, () => {
  it('prints what the guest prints and nothing else', async () => {
    expect(await run(hello)).toEqual({ status: 33, out: 'hello\n', err: '' })
  })

  it.each([
    { name: 'exit7', code: [Code.print('bye\n'), Code.exit(7)], status: 7, out: 'bye\n', err: /^$/ },
    { name: 'off', code: [Code.powerOff], status: 0, out: '', err: /^$/ },
    {
      name: 'triple',
      code: [Code.undefined],
      status: 4,
      out: '',
      err: /^the guest crashed: triple fault at RIP 0x100020 \(vCPU 0\)\n$/,
    },
    {
      name: 'hung',
      code: [Code.print('x'), Code.haltForEver],
      status: 4,
      out: 'x',
      err: /halted with interrupts disabled: nothing can wake it at RIP 0x/,
    },
  ])('$name gives $status', async ({ name, code, status, out, err }) => {
    const result = await run(await guest(name, ...code))
    expect(result).toMatchObject({ status, out })
    expect(result.err).toMatch(err)
  })

  it('ends a guest that goes on for too long', async () => {
    const started = performance.now()
    const result = await run(await guest('loop', Code.loop), '--timeout', '700ms')
    expect(result.status).toBe(124)
    expect(result.err).toMatch(/^the guest still ran after 700ms at RIP 0x10002\d\n$/)
    expect(performance.now() - started).toBeLessThan(20_000)
  })

  it('starts a reset machine over, or ends it', async () => {
    const kernel = await guest('reset', Code.print('r'), Code.reset, Code.loop)
    const over = await run(kernel, '--timeout', '1s')
    expect(over.status).toBe(124)
    expect(over.out).toMatch(/^r{2,}$/)
    expect(await run(kernel, '--set', 'machine.onReset=end')).toEqual({ status: 0, out: 'r', err: '' })
  })
})

describe('what a run tells', { timeout: 60_000 }, () => {
  it('where the guest spent its time', async () => {
    const kernel = await guest('busy', Code.loop)
    const map = join(folder, 'System.map')
    await writeFile(map, '0000000000100000 T before\n0000000000100020 T the_loop\n')
    const profile = join(folder, 'run.folded')
    await run(kernel, '--timeout', '700ms', '--profile', profile, '--symbols', map)
    const [stack, us] = (await readFile(profile, 'utf8')).split('\n')[0]!.split(' ')
    expect(stack).toBe('[kernel];the_loop')
    expect(Number(us)).toBeGreaterThan(1000)
    const none = await run(kernel, '--profile', profile, '--symbols', profile)
    expect(none).toMatchObject({ status: 2, err: expect.stringContaining('names no address') as string })
  })

  it('statistics for programs, on standard error', async () => {
    const { out, err } = await run(hello, '--stats=json')
    expect(out).toBe('hello\n')
    const stats = JSON.parse(err) as {
      exits: { reason: string; count: number }[]
      metrics: { name: string }[]
      startMs: number
      startParts: Record<string, number>
    }
    expect(stats.exits.reduce((sum, { count }) => sum + count, 0)).toBeGreaterThan(10)
    expect(stats.metrics.map(({ name }) => name)).toContain('vcpu0.instructions')
    expect(stats.metrics.map(({ name }) => name)).toContain('vcpu0.tiers.interpreted')
    const { node, stack, machine, guest } = stats.startParts
    for (const part of [node, stack, machine, guest, stats.startMs]) expect(part).toBeGreaterThan(0)
    expect(node! + stack! + machine! + guest!).toBeLessThanOrEqual(stats.startMs)
  })

  /** What "Trace Event Format" says of the events that we write: the fields that each kind has, and theirs alone. */
  const FIELDS: Readonly<Record<string, Readonly<Record<string, (value: unknown) => boolean>>>> = {
    M: { pid: Number.isInteger, name: (name) => name === 'process_name' || name === 'thread_name', args: (args) => typeof (args as { name: unknown }).name === 'string' },
    X: { pid: Number.isInteger, tid: Number.isInteger, name: isText, cat: isText, ts: isTime, dur: isTime },
    C: { pid: Number.isInteger, name: isText, cat: isText, ts: isTime, args: (args) => Object.values(args as object).every((value) => Number.isFinite(value)) },
  }

  it('a trace: its format, and what is in it', async () => {
    const file = join(folder, 'trace.json')
    await run(demo, '--memory', '32M', '--trace', file)
    const { displayTimeUnit, traceEvents, ...more } = JSON.parse(await readFile(file, 'utf8')) as { displayTimeUnit: string; traceEvents: TraceEvent[] }
    expect([displayTimeUnit, more]).toEqual(['ns', {}])
    const wrong = traceEvents.filter(({ ph, ...fields }) => {
      const known = FIELDS[ph]
      if (ph === 'M' && fields.name === 'thread_name') expect(fields.tid).toBeGreaterThan(0)
      if (ph === 'M') delete fields.tid
      return !known || Object.keys(known).length !== Object.keys(fields).length || !Object.entries(known).every(([key, is]) => is(fields[key as keyof typeof fields]))
    })
    expect(wrong).toEqual([])
    const names = new Map(traceEvents.filter(({ name }) => name === 'thread_name').map(({ tid, args }) => [tid, args!.name]))
    const spans = traceEvents.filter(({ ph }) => ph === 'X').map(({ tid, name, ts, dur }) => ({ track: names.get(tid), name, from: Math.round(ts! * 1000), to: Math.round(ts! * 1000) + Math.round(dur! * 1000) }))
    // Spans of a track lie within each other or apart. ("Complete Events" are nested by their times.)
    for (const track of names.values()) {
      const open: number[] = []
      for (const { from, to } of spans.filter((span) => span.track === track).toSorted((a, b) => a.from - b.from || b.to - a.to)) {
        while (open.length > 0 && open.at(-1)! <= from) open.pop()
        expect(to).toBeLessThanOrEqual(open.at(-1) ?? Infinity)
        open.push(to)
      }
    }
    const kinds = new Set(spans.map(({ track, name }) => `${track}: ${name}`))
    for (const kind of ['vcpu0: halt', 'vcpu0: ioInstruction', 'vcpu0: uart0 write', 'vcpu0 interrupts: vector 0x20']) expect([...kinds]).toContain(kind)
    const runs = spans.filter(({ name }) => ['halt', 'budget'].includes(name))
    const isInRun = ({ from, to }: (typeof spans)[number]) => runs.some((one) => one.from <= from && to <= one.to)
    expect(spans.filter(({ name }) => ['uart0 write', 'ioInstruction'].includes(name)).filter((span) => !isInRun(span))).toEqual([])
  })

  it('--log-format json: each message is a line of JSON', async () => {
    const { status, out, err } = await run(await guest('triple', Code.undefined), '--log-format', 'json')
    expect([status, out]).toEqual([4, ''])
    expect(err.trimEnd().split('\n').map((line) => JSON.parse(line) as unknown)).toEqual([
      { time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/) as string, level: 'notice', message: expect.stringMatching(/^the guest crashed: triple fault/) as string },
    ])
    const wrong = await run('/nowhere', '--log-format', 'json')
    expect(JSON.parse(wrong.err)).toMatchObject({ level: 'error', code: 'host.file', message: expect.stringContaining('/nowhere') as string })
  })

  it('--max-rss ends a guest whose process became too large', async () => {
    const { status, out, err } = await run(await guest('loop', Code.print('on\n'), Code.loop), '--max-rss', '10M')
    expect([status, ['', 'on\n'].includes(out)]).toEqual([3, true])
    expect(err).toMatch(/^error: the process has \d+ MiB of resident memory, more than --max-rss 10M\n$/)
    expect(await run(hello, '--max-rss', '64G')).toMatchObject({ status: 33, err: '' })
  })

  it.each(['--stats=xml', '--log-format=xml'])('refuses %s', async (option) => {
    const { status, out, err } = await run(hello, option)
    expect([status, out]).toEqual([2, ''])
    expect(err).toMatch(/argument 'xml' is invalid. Allowed choices are text, json/)
  })

  it.each([
    { kernel: hello, input: undefined },
    { kernel: demo, input: undefined },
    // Whenever it comes.
    { kernel: demo, input: 'words that nobody reads' },
  ])('the same console and the same counts twice, with a deterministic clock: $kernel, $input', async (guest) => {
    const { kernel, input: text } = guest
    const settings = ['--memory', '32M', '--stats=json', '--set', 'machine.clock=deterministic']
    const once = async (afterMs = 0) => {
      const input = text === undefined ? {} : { input: { text, afterMs } }
      const { out, err } = await spawnCli(['run', '--kernel', kernel, ...settings], input)
      const { metrics } = JSON.parse(err) as { metrics: { name: string; unit: string; value: number }[] }
      return { out, counts: metrics.filter(({ name, unit }) => unit !== 'ns' || name === 'vm.guestNs') }
    }
    expect(await once(900)).toEqual(await once())
  })
})

describe('what cannot be run', { timeout: 60_000 }, () => {
  const missing = '/does/not/exist'
  it.each([
    {
      name: 'no such kernel',
      args: ['--kernel', missing],
      status: 3,
      says: `cannot read the kernel ${missing}: there is no such file`,
    },
    { name: 'a folder as kernel', args: ['--kernel', '/'], status: 3, says: 'it is a folder' },
    { name: 'a kernel that is none', args: ['--kernel', fileURLToPath(import.meta.url)], status: 2, says: 'boot_flag' },
    {
      name: 'no such initrd',
      args: ['--kernel', hello, '--initrd', missing],
      status: 3,
      says: 'cannot read the module 0',
    },
    { name: 'no such stack', args: [missing + '.yaml'], status: 2, says: 'there is no such file' },
    { name: 'no memory', args: ['--kernel', hello, '--memory', '0'], status: 2, says: 'out of range' },
    { name: 'absurd memory', args: ['--kernel', hello, '--memory', '64TiB'], status: 2, says: 'out of range' },
    { name: 'no size', args: ['--kernel', hello, '--memory', 'much'], status: 2, says: '"much" is not a size' },
    {
      name: 'no duration',
      args: ['--kernel', hello, '--timeout', 'soon'],
      status: 2,
      says: '"soon" is not a duration',
    },
    {
      name: 'a trace that cannot be written',
      args: ['--kernel', hello, '--trace', '/does/not/exist/x'],
      status: 3,
      says: 'cannot write the trace',
    },
  ])('$name', async ({ args, status, says }) => {
    const result = await spawnCli(['run', ...args])
    expect(result).toMatchObject({ status, out: '' })
    expect(result.err).toContain(says)
    expect(result.err).not.toMatch(stackTrace)
  })
})
