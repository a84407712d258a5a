/** Control sockets, with VMs that are faked: what clients of QMP rely on, and what hostile ones try. */

import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { createConnection } from 'node:net'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { VmEvent } from '@nonroot/hypervisor'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { version } from '../version.ts'
import { serveControl } from './control-server.ts'
import type { ControlServer } from './control-server.ts'
import type { ControlledEnd, ControlledVm } from './controlled-vm.ts'
import { LONGEST } from './json-stream.ts'

const MEMORY = {
  ...{ residentFrames: 300, sharedFrames: 0, parkedFrames: 0, pinnedFrames: 0 },
  ...{ maximumFrames: 1024, minimumFrames: 0, shares: 1000, hasBalloon: true, balloonedFrames: 24 },
  ...{ targetFrames: 1024, techniques: [] },
}
const ANSWERS: Record<string, (of: never) => unknown> = {
  memory: () => MEMORY,
  info: () => ({ vcpus: [{ rip: 0n, activity: 'active', instructions: 5 }] }),
  stats: () => [
    { name: 'vcpu0.exits.portIo', kind: 'counter', unit: 'count', help: 'exits', value: 7 },
    { name: 'device.uart0.bytesOut', kind: 'counter', unit: 'bytes', help: 'sent', value: 9 },
    { name: 'vm.guestNs', kind: 'gauge', unit: 'ns', help: 'guest time', value: 1.5e9 },
    { name: 'vcpu0.cost', kind: 'histogram', unit: 'ns', help: 'cost', value: 3e9, count: 2, max: 2e9 },
  ],
  hostStats: () => [],
  hostMemory: () => ({ totalFrames: 4096, freeFrames: 1000 }),
  disks: () => [{ device: 'disk0', kind: 'virtio-blk', image: '/a.qcow2', readOnly: true }],
  plug: ({ device }: { device: string }) => Number(device === 'net0'),
  powerButton: () => false,
  requestMemory: () => true,
}

class FakeVm implements ControlledVm {
  readonly name: string
  state: ControlledVm['state'] = 'running'
  readonly startedAt = 0
  status: number | undefined
  readonly agent = undefined
  readonly noAgent = 'it is a fake'
  readonly requests: unknown[] = []
  readonly typed: string[] = []
  readonly stop = vi.fn()
  readonly listeners = new Set<(event: VmEvent) => void>()
  readonly consoles = new Set<(bytes: Uint8Array) => void>()
  end!: (end: ControlledEnd) => void
  readonly ended = new Promise<ControlledEnd>((resolve) => (this.end = resolve))

  constructor(name: string) {
    this.name = name
  }
  async request(what: string, of?: unknown): Promise<never> {
    this.requests.push(of === undefined ? what : [what, of])
    return (this.state === 'ended' ? undefined : (ANSWERS[what]?.(of as never) ?? true)) as never
  }
  input(bytes: Uint8Array): void {
    this.typed.push(Buffer.from(bytes).toString())
  }
  resizeConsole({ columns, rows }: { columns: number; rows: number }): void {
    this.typed.push(`${columns}x${rows}`)
  }
  onConsole(listener: (bytes: Uint8Array) => void): () => void {
    this.consoles.add(listener)
    return () => this.consoles.delete(listener)
  }
  onEvent(listener: (event: VmEvent) => void): () => void {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }
}

/** A client that sees what comes as messages. */
class Client {
  readonly socket: Socket
  readonly messages: Record<string, unknown>[] = []
  isClosed = false
  #text = ''

  constructor(path: string) {
    this.socket = createConnection(path)
    this.socket.on('error', () => {})
    this.socket.on('close', () => (this.isClosed = true))
    this.socket.on('data', (chunk) => {
      const lines = (this.#text + chunk.toString()).split('\r\n')
      this.#text = lines.pop()!
      this.messages.push(...lines.map((line) => JSON.parse(line) as Record<string, unknown>))
    })
  }
  send(text: string | Uint8Array): void {
    this.socket.write(text)
  }
  /** The message after those that were seen before. */
  async next(): Promise<Record<string, unknown>> {
    await vi.waitFor(() => expect(this.messages.length).toBeGreaterThan(0), { interval: 2, timeout: 5000 })
    return this.messages.shift()!
  }
  async ask(execute: string, given?: object): Promise<unknown> {
    this.send(JSON.stringify({ execute, ...(given ? { arguments: given } : {}) }))
    const { return: value, error } = await this.next()
    return value ?? error
  }
  closed(): Promise<void> {
    return vi.waitFor(() => expect(this.isClosed).toBe(true), { interval: 2, timeout: 5000 })
  }
}

let runtime: string
let server: ControlServer
let web: FakeVm
let db: FakeVm
const clients: Client[] = []

beforeEach(async () => {
  runtime = mkdtempSync(join(tmpdir(), 'nr-'))
  web = new FakeVm('web')
  db = new FakeVm('db')
  server = await serveControl({ file: 'fleet.yaml', vms: [web, db] }, runtime)
})
afterEach(async () => {
  for (const { socket } of clients.splice(0)) socket.destroy()
  await server.close()
  rmSync(runtime, { recursive: true, force: true })
})

function connect(path = server.sockets.qmp('web')): Client {
  const client = new Client(path)
  clients.push(client)
  return client
}
async function negotiated(path?: string): Promise<Client> {
  const client = connect(path)
  await client.next()
  expect(await client.ask('qmp_capabilities')).toEqual({})
  return client
}

describe('a control socket', () => {
  it('greets, and executes nothing before the negotiation', async () => {
    const client = connect()
    const [major, minor, micro] = version().split('.').map(Number)
    expect(await client.next()).toEqual({
      QMP: { version: { qemu: { major, minor, micro }, package: `nonroot ${version()}` }, capabilities: [] },
    })
    expect(await client.ask('stop')).toMatchObject({ class: 'CommandNotFound' })
    expect(web.requests).toEqual([])
    expect(await client.ask('qmp_capabilities')).toEqual({})
    expect(await client.ask('qmp_capabilities')).toMatchObject({ class: 'CommandNotFound' })
    expect(await client.ask('stop')).toEqual({})
    expect(web.requests).toEqual(['pause'])
  })

  it('is for its user alone', () => {
    const { folder, host, qmp, console } = server.sockets
    const modes = [folder, host, qmp('web'), console('db')].map((path) => statSync(path).mode & 0o777)
    expect(modes).toEqual([0o700, 0o600, 0o600, 0o600])
  })

  it.each<[string, object | undefined, unknown]>([
    ['query-status', undefined, { status: 'running', running: true }],
    ['query-name', undefined, { name: 'web' }],
    ['query-cpus-fast', undefined, [expect.objectContaining({ 'cpu-index': 0, 'thread-id': process.pid })]],
    ['query-balloon', undefined, { actual: 1000 * 4096 }],
    ['query-memory-size-summary', undefined, { 'base-memory': 1024 * 4096 }],
    [
      'query-block',
      undefined,
      [expect.objectContaining({ device: 'disk0', inserted: { file: '/a.qcow2', ro: true, drv: 'qcow2' } })],
    ],
    ['set_link', { name: 'net0', up: false }, {}],
    ['set_link', { name: 'net1', up: false }, { class: 'DeviceNotFound', desc: "Device 'net1' not found" }],
    ['set_link', { name: 'net0' }, { class: 'GenericError', desc: "Parameter 'up' is missing" }],
    ['__dev.nonroot_resize_console', { columns: 132, rows: 50 }, {}],
    ['__dev.nonroot_resize_console', { columns: 132, rows: 0 }, { class: 'GenericError', desc: "Parameter 'rows' expects a number from 1 to 65535" }],
    ['balloon', { value: 2 ** 21 }, {}],
    [
      'balloon',
      { value: 'all' },
      { class: 'GenericError', desc: "Invalid parameter type for 'value', expected: integer" },
    ],
    ['balloon', { value: -1 }, { class: 'GenericError', desc: "Parameter 'value' expects a size" }],
    ['stop', { now: true }, { class: 'GenericError', desc: "Parameter 'now' is unexpected" }],
    ['system_powerdown', undefined, { class: 'GenericError', desc: 'the guest does not listen to its power button' }],
    ['human-monitor-command', { 'command-line': 'info status' }, 'VM status: running\r\n'],
    ['human-monitor-command', { 'command-line': 'info balloon' }, 'balloon: actual=3.90625\r\n'],
    ['human-monitor-command', { 'command-line': 'quit' }, "unknown command: 'quit'\r\n"],
    ['human-monitor-command', { 'command-line': 'info toString' }, "unknown command: 'info toString'\r\n"],
    ['constructor', undefined, { class: 'CommandNotFound', desc: 'The command constructor has not been found' }],
  ])('%s %j', async (name, given, expected) => {
    expect(await (await negotiated()).ask(name, given)).toEqual(expected)
  })

  it('gives a command what it was given', async () => {
    const client = await negotiated()
    await client.ask('balloon', { value: 2 ** 21 })
    await client.ask('set_link', { name: 'net0', up: true })
    await client.ask('__dev.nonroot_resize_console', { columns: 132, rows: 50 })
    expect(web.typed).toEqual(['132x50'])
    expect(web.requests).toEqual([
      ['requestMemory', 512],
      ['plug', { on: true, device: 'net0' }],
    ])
    await client.ask('quit')
    await vi.waitFor(() => expect(web.stop).toHaveBeenCalledWith({ by: 'user' }))
    expect(db.stop).not.toHaveBeenCalled()
  })

  it('lists its commands and keeps the id of each', async () => {
    const client = await negotiated()
    expect(await client.ask('query-commands')).toContainEqual({ name: 'query-status' })
    client.send('{"execute":"query-name","id":{"a":1}}\n{"execute":"nope","id":7}')
    expect([await client.next(), await client.next()]).toEqual([
      { return: { name: 'web' }, id: { a: 1 } },
      { error: expect.objectContaining({ class: 'CommandNotFound' }) as object, id: 7 },
    ])
  })

  it('tells events to those that negotiated, of this VM', async () => {
    const [client, other, silent] = [await negotiated(), await negotiated(server.sockets.qmp('db')), connect()]
    await silent.next()
    const events: VmEvent[] = [
      { kind: 'paused' },
      { kind: 'resumed' },
      { kind: 'powerButton' },
      { kind: 'reset', guest: true },
      { kind: 'balloon', remainingBytes: 4096 },
    ]
    for (const event of events) for (const listener of web.listeners) listener(event)
    web.end({ status: 0, end: { state: 'poweredOff' }, stop: undefined })
    const seen = []
    for (let count = 0; count < 6; count++) seen.push(await client.next())
    expect(seen.map(({ event, data }) => (data ? [event, data] : event))).toEqual([
      'STOP',
      'RESUME',
      'POWERDOWN',
      ['RESET', { guest: true, reason: 'guest-reset' }],
      ['BALLOON_CHANGE', { actual: 4096 }],
      ['SHUTDOWN', { guest: true, reason: 'guest-shutdown' }],
    ])
    expect([other.messages, silent.messages]).toEqual([[], []])
  })

  it('answers for a VM that is not there', async () => {
    const client = await negotiated()
    web.state = 'ended'
    expect(await client.ask('query-status')).toEqual({ status: 'shutdown', running: false })
    expect(await client.ask('stop')).toMatchObject({ desc: 'the VM has ended' })
  })

  it('gives metrics as Prometheus reads them', async () => {
    const client = await negotiated(server.sockets.host)
    const text = (await client.ask('__dev.nonroot_metrics')) as string
    expect(text.split('\n').slice(0, 4)).toEqual([
      '# HELP nonroot_vcpu_exits_port_io_total exits',
      '# TYPE nonroot_vcpu_exits_port_io_total counter',
      'nonroot_vcpu_exits_port_io_total{vm="web",vcpu="0"} 7',
      'nonroot_vcpu_exits_port_io_total{vm="db",vcpu="0"} 7',
    ])
    expect(text).toContain('nonroot_device_bytes_out_bytes_total{vm="web",device="uart0"} 9')
    expect(text).toContain('nonroot_vm_guest_seconds{vm="web"} 1.5')
    expect(text).toContain(
      'nonroot_vcpu_cost_seconds_sum{vm="db",vcpu="0"} 3\nnonroot_vcpu_cost_seconds_count{vm="db",vcpu="0"} 2',
    )
    expect(text).toContain('nonroot_vcpu_cost_seconds_max{vm="db",vcpu="0"} 2')
  })
})

describe('a hostile client', () => {
  /** Whatever happened, another client is served. */
  const isServed = async (): Promise<void> => {
    expect(await (await negotiated()).ask('query-name')).toEqual({ name: 'web' })
  }

  it.each<[string, string | Uint8Array, string]>([
    ['words', 'GET / HTTP/1.1\n', 'JSON parse error, this is no JSON object'],
    ['bytes', Uint8Array.of(0, 255, 10), 'JSON parse error, this is no JSON object'],
    ['a list', '[1, 2]\n', 'JSON parse error, this is no JSON object'],
    ['an object that is none', '{]}', 'JSON parse error, '],
    ['no command', '{}', "QMP input lacks member 'execute'"],
    ['a command that is no word', '{"execute":7}', "QMP input lacks member 'execute'"],
    [
      'arguments that are a list',
      '{"execute":"stop","arguments":[]}',
      "QMP input member 'arguments' must be an object",
    ],
  ])('sends %s: is told, and may go on', async (_, sent, words) => {
    const client = await negotiated()
    client.send(sent)
    expect(await client.next()).toMatchObject({
      error: { class: 'GenericError', desc: expect.stringContaining(words) as string },
    })
    expect(await client.ask('query-name')).toEqual({ name: 'web' })
  })

  it('sends half lines, byte by byte, with brackets in strings', async () => {
    const client = await negotiated()
    for (const byte of Buffer.from('{"execute":"query-name","id":"}\\"{"}')) {
      client.send(Uint8Array.of(byte))
      await new Promise((resolve) => setImmediate(resolve))
    }
    expect(await client.next()).toEqual({ return: { name: 'web' }, id: '}"{' })
  })

  it('sends a command without end: is dropped at the bound', async () => {
    const client = await negotiated()
    client.send(`{"execute":"${'x'.repeat(2 * LONGEST)}`)
    expect(await client.next()).toMatchObject({ error: { desc: 'JSON parse error, the command is too long' } })
    await client.closed()
    await isServed()
  })

  it('never reads: is dropped, and nobody waits for it', async () => {
    const client = await negotiated()
    client.socket.pause()
    const console = connect(server.sockets.console('web'))
    console.socket.pause()
    await vi.waitFor(() => expect(web.consoles.size).toBe(1))
    const piece = new Uint8Array(64 * 1024)
    for (let count = 0; count < 100; count++) {
      for (const listener of web.consoles) listener(piece)
      for (const listener of web.listeners)
        for (let many = 0; many < 500; many++) listener({ kind: 'reset', guest: false })
      await new Promise((resolve) => setImmediate(resolve))
    }
    await vi.waitFor(() => expect(web.consoles.size).toBe(0))
    for (const one of [client, console]) {
      one.socket.on('data', () => {})
      one.socket.resume()
      await one.closed()
    }
    await isServed()
  })

  it('connects many times: those beyond the bound are dropped', async () => {
    const many = Array.from({ length: 40 }, () => connect())
    await vi.waitFor(() => expect(many.filter(({ isClosed }) => isClosed)).toHaveLength(8), { timeout: 5000 })
    for (const { socket } of many) socket.destroy()
    await vi.waitFor(isServed, { timeout: 5000 })
  })

  it('goes away in the middle of everything', async () => {
    const client = await negotiated()
    client.send('{"execute":"query-name"}'.repeat(1000))
    client.socket.destroy()
    await isServed()
  })
})

describe("a VM's console", () => {
  it('has what is printed from now on, and takes what is typed', async () => {
    const client = createConnection(server.sockets.console('web'))
    let text = ''
    client.on('data', (bytes) => (text += bytes.toString()))
    await vi.waitFor(() => expect(web.consoles.size).toBe(1))
    for (const listener of web.consoles) listener(Buffer.from('login: '))
    client.write('root\n')
    await vi.waitFor(() => expect([text, web.typed]).toEqual(['login: ', ['root\n']]))
    const closed = new Promise((resolve) => client.on('close', resolve))
    web.end({ status: 0, end: undefined, stop: undefined })
    await closed
  })
})

it('says which path is too long for a socket', async () => {
  await expect(serveControl({ file: 'f', vms: [web] }, `/tmp/${'x'.repeat(100)}`)).rejects.toMatchObject({
    message: expect.stringMatching(/has at most 103 characters, and \/tmp\/x+\/\d+\/\S+ has \d+/) as string,
    remedy: expect.stringContaining('NONROOT_RUNTIME') as string,
  })
})
