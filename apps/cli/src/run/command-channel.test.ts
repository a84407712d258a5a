/** Commands by the guest's agent, which is a process here: their streams, sizes, signals and ends. */

import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { AGENT_WINDOW } from '@nonroot/image'
import type { AgentCommand } from '@nonroot/image'
import { canRunAgent, nativeAgent } from '../testing/native-agent.ts'
import type { NativeAgent } from '../testing/native-agent.ts'
import { CommandChannel } from './command-channel.ts'

/** What a command was given and what became of it. */
interface Run {
  out: string
  err: string
  end: string | undefined
  /** Calls that take what was shown, if `isSlow`. */
  readonly dones: (() => void)[]
}

let native: NativeAgent
beforeEach(() => (native = nativeAgent()))
afterEach(() => native.remove())

function start(command: AgentCommand, isSlow = false) {
  const run: Run = { out: '', err: '', end: undefined, dones: [] }
  const show = (stream: 'out' | 'err') => (bytes: Uint8Array, done: () => void) => {
    run[stream] += Buffer.from(bytes).toString('latin1')
    if (isSlow) run.dones.push(done)
    else done()
  }
  const running = native.agent.client.start(command, {
    output: show('out'),
    errors: show('err'),
    drained() {},
    ended: (status) => (run.end = `${status}`),
    refused: (why) => (run.end = why.message),
    lost: (why) => (run.end = why.message),
  })
  return { run, running, ended: () => vi.waitFor(() => expect(run.end).toBeDefined(), { timeout: 20_000, interval: 5 }) }
}
const ready = () => new Promise<void>((resolve) => native.agent.whenReady(() => resolve()))
const sh = (script: string, ...more: string[]): AgentCommand => ({ words: ['sh', '-c', script, 'sh', ...more] })
const every = Uint8Array.from({ length: 1 << 20 }, (_, index) => (index * 7 + (index >> 8)) & 0xff)

/** However busy the machine is. */
const SOON = { timeout: 20_000, interval: 5 }

describe.skipIf(!canRunAgent)('a command', { timeout: 60_000 }, () => {
  beforeEach(async () => {
    void native.start()
    await ready()
  })

  it.each([
    { what: 'input without a newline', command: sh('wc -c'), input: 'x', out: '1\n' },
    { what: 'what a terminal would act on', command: sh('od -An -tx1'), input: 'a\x04b\x03\r\x1ac\n', out: ' 61 04 62 03 0d 1a 63 0a\n' },
    { what: 'a million bytes of every kind', command: sh('cat'), input: every, out: Buffer.from(every).toString('latin1') },
    { what: 'a million bytes to both outputs', command: sh('tee /dev/stderr'), input: every, out: Buffer.from(every).toString('latin1'), err: Buffer.from(every).toString('latin1') },
    { what: 'standard error apart', command: sh('echo out; echo err >&2'), out: 'out\n', err: 'err\n' },
    { what: 'input that nobody reads', command: sh('exit 3'), input: every, out: '', end: '3' },
    { what: 'a signal', command: sh('kill -9 $$'), out: '', end: '137' },
    { what: 'no such program', command: { words: ['nope', 'x'] }, out: '', err: 'nonroot: nope: not found\n', end: '127' },
    { what: 'an environment', command: { ...sh('echo $A $HOME'), environment: ['A=b', 'HOME=/'] }, out: 'b /\n' },
    { what: 'a child left behind', command: sh('sleep 1000 & echo $!'), out: /^\d+\n$/ },
    { what: 'a terminal', command: { ...sh('test -t 0 && stty size'), terminal: { rows: 33, columns: 101 } }, out: '33 101\r\n' },
    { what: 'no terminal', command: sh('test -t 0 || test -t 1 || echo none'), out: 'none\n' },
  ])('$what', async ({ command, input, out, err = '', end = '0' }) => {
    const { run, running, ended } = start(command)
    if (input !== undefined) running.write(Buffer.from(input))
    running.end()
    await ended()
    expect(run.end).toBe(end)
    if (typeof out === 'string') expect(run.out === out).toBe(true)
    else {
      expect(run.out).toMatch(out)
      process.kill(Number(run.out))
    }
    expect(run.err === err).toBe(true)
  })

  it('ten at once keep their streams apart', async () => {
    const all = Array.from({ length: 10 }, (_, index) => ({ index, ...start(sh('cat; echo "$1" >&2; exit $1', `${index}`)) }))
    for (const { running, index } of all) running.write(new Uint8Array(100_000).fill(index))
    for (const { running } of all.toReversed()) running.end()
    for (const { ended } of all) await ended()
    for (const { run, index } of all) {
      expect([run.end, run.err, run.out.length]).toEqual([`${index}`, `${index}\n`, 100_000])
      expect(run.out.replaceAll(String.fromCharCode(index), '')).toBe('')
    }
  })

  it('waits for its reader, and no other does', async () => {
    const slow = start(sh('yes | head -c 300000'), true)
    await vi.waitFor(() => expect(slow.run.out.length).toBe(AGENT_WINDOW), SOON)
    const other = start(sh('echo other'))
    await other.ended()
    expect([other.run.out, slow.run.out.length, slow.run.end]).toEqual(['other\n', AGENT_WINDOW, undefined])
    const take = setInterval(() => slow.run.dones.splice(0).forEach((done) => done()), 1)
    await slow.ended()
    clearInterval(take)
    expect([slow.run.out.length, slow.run.end]).toEqual([300_000, '0'])
  })

  it('is refused beyond as many as run', async () => {
    const all = Array.from({ length: 64 }, () => start(sh('read line')))
    const more = start(sh('true'))
    await more.ended()
    expect(more.run.end).toBe('the guest did not start the command: too many commands run')
    for (const { running } of all) running.end()
    for (const { ended } of all) await ended()
    const again = start(sh('true'))
    await again.ended()
    expect(again.run.end).toBe('0')
  })

  it('hears signals, and of another size', async () => {
    const { run, running, ended } = start({
      ...sh('trap "stty size" WINCH; trap "echo term; exit 5" TERM; echo up; while :; do sleep 0.01; done'),
      terminal: { rows: 24, columns: 80 },
    })
    await vi.waitFor(() => expect(run.out).toBe('up\r\n'), SOON)
    running.resize({ rows: 50, columns: 132 })
    await vi.waitFor(() => expect(run.out).toBe('up\r\n50 132\r\n'), SOON)
    running.signal(15)
    await ended()
    // The group's: what the shell has started ends by it, too.
    expect([run.out, run.end]).toEqual([expect.stringMatching(/\r\nterm\r\n$/), '5'])
  })
})

describe.skipIf(!canRunAgent)("a VM's own command", { timeout: 60_000 }, () => {
  const channel = (words: readonly string[]) => {
    const heard: string[] = []
    const command: CommandChannel = new CommandChannel(native.agent, words, undefined, {
      interactive: false,
      pause() {},
      resume() {},
      output: (bytes, done) => (heard.push(Buffer.from(bytes).toString()), done()),
      errors: (_, done) => done(),
      started: () => heard.push('started'),
      failed: (error) => heard.push(error.message),
    })
    return { command, heard }
  }

  it('starts when the agent is there, and ends it', async () => {
    const { command, heard } = channel(['sh', '-c', 'echo hi; exit 7'])
    expect(await native.start()).toBe(7)
    expect([heard, command.status]).toEqual([['started', 'hi\n'], 7])
  })

  it('is not run again by a guest that restarts: that is its end', async () => {
    const { command, heard } = channel(['sh', '-c', 'echo hi; sleep 1000'])
    void native.start()
    await vi.waitFor(() => expect(heard).toEqual(['started', 'hi\n']), SOON)
    native.agent.reset()
    const lost = 'the guest was restarted before the command had ended'
    expect(heard).toEqual(['started', 'hi\n', lost])
    void native.start()
    await ready()
    // Whatever the new agent runs for others.
    const other = start({ words: ['echo', 'other'] })
    await other.ended()
    expect([heard, command.status]).toEqual([['started', 'hi\n', lost], undefined])
  })

  it('that ends with its guest does not say so twice', async () => {
    const { heard } = channel(['sh', '-c', 'echo hi; sleep 1000'])
    void native.start()
    await vi.waitFor(() => expect(heard).toEqual(['started', 'hi\n']), SOON)
    native.agent.end()
    expect(heard).toEqual(['started', 'hi\n'])
  })
})
