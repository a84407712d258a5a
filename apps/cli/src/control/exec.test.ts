/** `nonroot exec`: commands in a VM whose guest's agent is a process of this machine. */

import { spawn } from 'node:child_process'
import { connect } from 'node:net'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { AGENT_VERSION, AGENT_WINDOW, AgentClient, frame, FromAgent, ToAgent } from '@nonroot/image'
import { cli, command, exec, folderWith, spawnCli } from '../testing/cli.ts'
import { canRunAgent, nativeAgent } from '../testing/native-agent.ts'
import type { NativeAgent } from '../testing/native-agent.ts'
import { serveControl } from './control-server.ts'
import type { ControlServer } from './control-server.ts'
import type { ControlledEnd, ControlledVm } from './controlled-vm.ts'

let native: NativeAgent
let server: ControlServer
let folder: string
let remove: () => void
let endVm: () => void
let env: NodeJS.ProcessEnv

const vm = (name: string, agent: ControlledVm['agent'], ended: Promise<ControlledEnd>): ControlledVm => ({
  ...{ name, agent, ended, state: 'running', startedAt: 0, status: undefined },
  noAgent: agent ? undefined : 'its stack has no virtio devices',
  request: async () => undefined,
  ...{ stop() {}, input() {}, resizeConsole() {}, onConsole: () => () => {}, onEvent: () => () => {} },
})

beforeEach(async () => {
  ;({ folder, remove } = await folderWith({}))
  native = nativeAgent()
  void native.start()
  const ended = new Promise<ControlledEnd>((resolve) => {
    endVm = () => {
      native.agent.end()
      resolve({ status: 0, end: { state: 'poweredOff' }, stop: undefined })
    }
  })
  env = { NONROOT_RUNTIME: join(folder, 'run'), TERM: 'vt100' }
  server = await serveControl({ file: 'a.yaml', vms: [vm('web', native.agent, ended), vm('old', undefined, ended)] }, env['NONROOT_RUNTIME'])
})
afterEach(async () => {
  await server.close()
  native.remove()
  remove()
})

const run = (words: readonly string[], input?: string | Uint8Array, ...flags: string[]) =>
  spawnCli(['exec', 'web', ...flags, '--', ...words], {
    env,
    encoding: 'latin1',
    ...(input === undefined ? {} : { input: { text: input, afterMs: 0 } }),
  })
const every = Uint8Array.from({ length: 1 << 20 }, (_, index) => (index * 7 + (index >> 8)) & 0xff)

/** However busy the machine is. */
const SOON = { timeout: 20_000, interval: 5 }

describe.skipIf(!canRunAgent)('nonroot exec', { timeout: 60_000 }, () => {
  it.each([
    { what: 'status and both outputs', words: ['sh', '-c', 'echo out; echo err >&2; exit 7'], out: 'out\n', err: 'err\n', status: 7 },
    { what: 'input without a newline', words: ['wc', '-c'], input: 'x', flags: ['-i'], out: '1\n' },
    { what: 'no input unless it is asked for', words: ['wc', '-c'], input: 'x', out: '0\n' },
    { what: 'a terminal that is none here', words: ['sh', '-c', 'test -t 1 && stty size && echo $TERM'], flags: ['-t'], out: '24 80\r\nvt100\r\n' },
  ])('$what', async ({ words, input, flags = [], out, err = '', status = 0 }) => {
    expect(await run(words, input, ...flags)).toEqual({ status, out, err })
  })

  it('a million bytes of every kind', async () => {
    const { status, out, err } = await run(['cat'], every, '-i')
    expect([status, err, out === Buffer.from(every).toString('latin1')]).toEqual([0, '', true])
  })

  it('signals are passed on', async () => {
    const script = 'trap "echo int; exit 3" INT; echo up; while :; do sleep 0.01; done'
    const child = spawn(command[0]!, [...command.slice(1), 'exec', 'web', '--', 'sh', '-c', script], { env: { ...process.env, ...env }, stdio: ['ignore', 'pipe', 'inherit'] })
    let out = ''
    child.stdout.on('data', (chunk: Buffer) => (out += chunk.toString()))
    await vi.waitFor(() => expect(out).toBe('up\n'), { timeout: 30_000, interval: 20 })
    child.kill('SIGINT')
    const status = await new Promise((resolve) => child.on('close', resolve))
    expect([out, status]).toEqual(['up\nint\n', 3])
  })

  it.each([
    { what: 'a VM without an agent', words: ['exec', 'old', '--', 'true'], says: /old has no agent in its guest: its stack has no virtio devices\n {2}nonroot attach old/ },
    { what: 'no command', words: ['exec', 'web'], says: /no command was given\n {2}nonroot exec web -- COMMAND/ },
    { what: 'a VM that is not there', words: ['exec', 'nope', '--', 'true'], says: /no VM "nope" is running/ },
  ])('refuses $what', async ({ words, says }) => {
    vi.stubEnv('NONROOT_RUNTIME', env['NONROOT_RUNTIME'])
    const { status, out, err } = await cli(...words)
    vi.unstubAllEnvs()
    expect([status, out]).toEqual([2, ''])
    expect(err).toMatch(says)
  })

  it('a guest that ends or restarts is the end of its commands', async () => {
    const client = commands()
    const [ended, reset] = [client.start('echo up; sleep 1000'), client.start('echo up; sleep 1000')]
    await vi.waitFor(() => expect([ended.heard, reset.heard]).toEqual([['up\n'], ['up\n']]), SOON)
    native.agent.reset()
    await vi.waitFor(() => expect(reset.heard).toEqual(['up\n', 'the guest was restarted before the command had ended']), SOON)
    void native.start()
    const other = client.start('echo up; sleep 1000')
    await vi.waitFor(() => expect(other.heard).toEqual(['up\n']), SOON)
    endVm()
    await vi.waitFor(() => expect(other.heard).toEqual(['up\n', 'the guest ended before the command had ended']), SOON)
  })
})

/** Commands by the socket, each on a connection of its own. */
function commands() {
  return {
    start(script: string) {
      const heard: string[] = []
      const socket = connect(server.sockets.exec('web'))
      const client = new AgentClient((bytes) => void socket.write(bytes), {
        ready: () =>
          void client.start(
            { words: ['sh', '-c', script] },
            {
              output: (bytes, done) => (heard.push(Buffer.from(bytes).toString()), done()),
              errors: (bytes, done) => (heard.push(Buffer.from(bytes).toString()), done()),
              drained() {},
              ended: (status) => void heard.push(`${status}`),
              refused: (why) => void heard.push(why.message),
              lost: (why) => void heard.push(why.message),
            },
          ),
        failed: (error) => void heard.push(error.message),
      })
      socket.on('data', (bytes) => client.receive(bytes))
      socket.on('error', () => {})
      return { heard, socket }
    },
  }
}

describe.skipIf(!canRunAgent)('a client of the socket', { timeout: 30_000 }, () => {
  const hello = frame(0, FromAgent.hello, new Uint8Array(Uint16Array.of(AGENT_VERSION, 1).buffer))
  const starting = (script: string) => {
    const fixed = Buffer.from(Uint16Array.of(0, 0, 0, 3, 0).buffer)
    return frame(5, ToAgent.start, Buffer.concat([fixed, Buffer.from(`sh\0-c\0${script}\0`)]))
  }
  const open = async () => {
    const socket = connect(server.sockets.exec('web'))
    let came = Buffer.alloc(0)
    let isClosed = false
    socket.on('data', (chunk) => (came = Buffer.concat([came, chunk])))
    socket.on('error', () => {})
    socket.on('close', () => (isClosed = true))
    await vi.waitFor(() => expect(came.equals(hello)).toBe(true), SOON)
    return { socket, came: () => came.subarray(hello.length), closed: () => vi.waitFor(() => expect(isClosed).toBe(true), { timeout: 20_000 }) }
  }

  it.each([
    { what: 'starts two', sends: [starting('sleep 100'), starting('sleep 100')] },
    { what: 'speaks of another command', sends: [starting('sleep 100'), frame(6, ToAgent.signal, Uint8Array.of(9))] },
    { what: 'would end the agent', sends: [frame(0, ToAgent.leave, Uint8Array.of(0))] },
    { what: 'would resize the console', sends: [frame(0, ToAgent.resize, new Uint8Array(4))] },
    { what: 'sends more input than there is room for', sends: [starting('sleep 100'), frame(5, ToAgent.input, new Uint8Array(AGENT_WINDOW)), frame(5, ToAgent.input, Uint8Array.of(1))] },
    { what: 'sends a frame that is too long', sends: [new Uint8Array(Uint32Array.of(1 << 20, 0).buffer)] },
    { what: 'sends no frames', sends: [Buffer.alloc(4096, 0xff)] },
    { what: 'gives credit and does not read', sends: [starting('yes'), ...Array.from({ length: 200 }, () => frame(5, ToAgent.credit, new Uint8Array(Uint32Array.of(0, AGENT_WINDOW).buffer)))], reads: false },
  ])('that $what is dropped, and harms nobody', async ({ sends, reads = true }) => {
    const { socket, closed } = await open()
    if (!reads) socket.pause()
    for (const bytes of sends) socket.write(bytes)
    if (reads) await closed()
    else socket.destroy()
    const { heard } = commands().start('echo fine')
    await vi.waitFor(() => expect(heard).toEqual(['fine\n', '0']), SOON)
  })

  it('that goes away hangs its command up, however much that writes', async () => {
    const { socket, came } = await open()
    socket.write(starting('trap "echo hup >gone; exit" HUP; echo up; while :; do echo 0123456789; done'.replace('gone', join(folder, 'gone'))))
    await vi.waitFor(() => expect(came().includes('up')).toBe(true), SOON)
    socket.destroy()
    await vi.waitFor(async () => expect((await exec('cat', [join(folder, 'gone')])).out).toBe('hup\n'), SOON)
  })
})
