import { describe, expect, it } from 'vitest'
import { concatBytes, decodeText, encodeText } from '../bytes.ts'
import { AgentClient } from './client.ts'
import { creditPayload, frame, FromAgent, HEADER_SIZE, MOST_PAYLOAD, numbers, ToAgent, VERSION, WINDOW } from './protocol.ts'

interface Frame {
  readonly id: number
  readonly kind: number
  readonly payload: Uint8Array
}

/** A client, what it sent, and what its one command heard. */
function bench() {
  const sent: Frame[] = []
  const heard: string[] = []
  const dones: (() => void)[] = []
  const client = new AgentClient(
    (bytes) => {
      const view = new DataView(bytes.buffer, bytes.byteOffset)
      if (view.getUint32(0, true) !== bytes.length - HEADER_SIZE) throw new Error('a frame has another length than it says')
      sent.push({ id: view.getUint16(4, true), kind: bytes[6]!, payload: bytes.slice(HEADER_SIZE) })
    },
    { ready: () => heard.push('ready'), failed: (error) => heard.push(`failed: ${error.message}`) },
  )
  const events = {
    output: (bytes: Uint8Array, done: () => void) => (heard.push(`output ${decodeText(bytes)}`), void dones.push(done)),
    errors: (bytes: Uint8Array, done: () => void) => (heard.push(`errors ${decodeText(bytes)}`), void dones.push(done)),
    drained: () => void heard.push('drained'),
    ended: (status: number) => void heard.push(`ended ${status}`),
    refused: (why: Error) => void heard.push(why.message),
    lost: (why: Error) => void heard.push(why.message),
  }
  const hello = frame(0, FromAgent.hello, numbers(VERSION, 64))
  const take = () => sent.splice(0)
  const start = (words: readonly string[] = ['true']) => {
    const command = client.start({ words }, events)
    return { command, id: take()[0]!.id }
  }
  const taken = (id: number, bytes: number) => client.receive(frame(id, FromAgent.taken, new Uint8Array(Uint32Array.of(bytes).buffer)))
  return { client, heard, dones, events, hello, take, start, taken }
}

describe('starting', () => {
  it.each([
    { command: { words: ['ls', '-l', 'a b'] }, payload: [...numbers(0, 0, 0, 3, 0), ...encodeText('ls\0-l\0a b\0')] },
    {
      command: { words: ['sh'], terminal: { rows: 24, columns: 300 }, environment: ['TERM=xterm', 'A='] },
      payload: [...numbers(1, 24, 300, 1, 2), ...encodeText('sh\0TERM=xterm\0A=\0')],
    },
    { command: { words: ['echo', 'ä', ''] }, payload: [...numbers(0, 0, 0, 3, 0), ...encodeText('echo\0ä\0\0')] },
  ])('$command.words', ({ command, payload }) => {
    const { client, events, take } = bench()
    client.start(command, events)
    expect(take().map(({ kind, payload: bytes }) => [kind, ...bytes])).toEqual([[ToAgent.start, ...payload]])
  })

  it.each([
    { length: MOST_PAYLOAD - 11, fits: true },
    { length: MOST_PAYLOAD - 10, fits: false },
  ])('a word of $length bytes fits: $fits', ({ length, fits }) => {
    const { client, events } = bench()
    const start = () => client.start({ words: ['x'.repeat(length)] }, events)
    if (fits) expect(start).not.toThrow()
    else expect(start).toThrow(/the command is \d+ bytes long/)
  })

  it('gives commands that run numbers of their own, and those of ended ones again', () => {
    const { client, start } = bench()
    const ids = Array.from({ length: 3 }, () => start().id)
    expect(new Set(ids).size).toBe(3)
    client.receive(frame(ids[1]!, FromAgent.ended, Uint8Array.of(0)))
    const more = Array.from({ length: 65_533 }, () => start().id)
    expect(new Set([ids[0], ids[2], ...more]).size).toBe(65_535)
    expect(more).toContain(ids[1])
    expect(() => start()).toThrow('65535 commands run in the guest')
    client.receive(frame(ids[0]!, FromAgent.ended, Uint8Array.of(0)))
    expect(start().id).toBe(ids[0])
  })
})

describe('what comes', () => {
  it.each([1, 3, 8, 1000])('in pieces of %i bytes', (piece) => {
    const { client, heard, hello, start } = bench()
    const { id } = start()
    const all = concatBytes([
      hello,
      frame(id, FromAgent.output, encodeText('one')),
      frame(id, FromAgent.errors, encodeText('two')),
      frame(id, FromAgent.ended, Uint8Array.of(7)),
      frame(id, FromAgent.output, encodeText('late')),
    ])
    for (let at = 0; at < all.length; at += piece) client.receive(all.slice(at, at + piece))
    expect(heard).toEqual(['ready', 'output one', 'errors two', 'ended 7'])
    expect(client.ready).toBe(true)
  })

  it('keeps the streams of several commands apart', () => {
    const { client, heard, start } = bench()
    const first = start().id
    const other: string[] = []
    const second = client.start(
      { words: ['b'] },
      {
        output: (bytes) => void other.push(decodeText(bytes)),
        errors: () => {},
        drained: () => {},
        ended: (status) => void other.push(`${status}`),
        refused: () => {},
        lost: () => {},
      },
    )
    expect(second).toBeDefined()
    client.receive(frame(first + 1, FromAgent.output, encodeText('b')))
    client.receive(frame(first, FromAgent.output, encodeText('a')))
    client.receive(frame(first + 1, FromAgent.ended, Uint8Array.of(9)))
    client.receive(frame(first, FromAgent.ended, Uint8Array.of(3)))
    expect([heard, other]).toEqual([
      ['output a', 'ended 3'],
      ['b', '9'],
    ])
  })

  it.each([
    { name: 'a refusal', bytes: (id: number) => frame(id, FromAgent.refused, encodeText('no room')), heard: ['the guest did not start the command: no room'] },
    { name: 'another version', bytes: () => frame(0, FromAgent.hello, numbers(VERSION + 1, 64)), heard: [`failed: the agent speaks version ${VERSION + 1}, not ${VERSION}`, `the agent speaks version ${VERSION + 1}, not ${VERSION} before the command had ended`] },
    { name: 'no version', bytes: () => frame(0, FromAgent.hello), heard: [`failed: the agent speaks version 0, not ${VERSION}`, `the agent speaks version 0, not ${VERSION} before the command had ended`] },
    { name: 'a frame that is too long', bytes: () => new Uint8Array(Uint32Array.of(MOST_PAYLOAD + 1, 0).buffer), heard: [`failed: the agent sent a frame of ${MOST_PAYLOAD + 1} bytes`, `the agent sent a frame of ${MOST_PAYLOAD + 1} bytes before the command had ended`] },
    { name: 'a refusal of the host’s', bytes: () => frame(0, FromAgent.refused, encodeText('none here\nlook elsewhere')), heard: ['failed: none here'] },
    { name: 'an unknown kind', bytes: (id: number) => frame(id, 0xff), heard: [] },
    { name: 'a command that does not run', bytes: () => frame(999, FromAgent.output, encodeText('x')), heard: [] },
    { name: 'a status without a byte', bytes: (id: number) => frame(id, FromAgent.ended), heard: ['ended 0'] },
  ])('$name', ({ bytes, heard: expected }) => {
    const { client, heard, start } = bench()
    const { id } = start()
    client.receive(bytes(id))
    expect(heard).toEqual(expected)
    // After nonsense nothing is believed.
    if (expected[0]?.startsWith('failed')) client.receive(frame(id, FromAgent.ended, Uint8Array.of(0)))
    expect(heard).toEqual(expected)
  })
})

describe('a guest that starts over', () => {
  it.each([
    { what: 'is reset', happens: ({ client }: ReturnType<typeof bench>) => client.lose('the guest was restarted'), heard: ['the guest was restarted before the command had ended'] },
    {
      what: 'has another agent',
      happens: ({ client, hello }: ReturnType<typeof bench>) => client.receive(hello),
      heard: ['the agent in the guest was started again before the command had ended', 'ready'],
    },
  ])('loses its commands when it $what', ({ happens, heard: expected }) => {
    const it = bench()
    const { client, heard, hello, take, start } = it
    client.receive(hello)
    const { command, id } = start()
    // Half a frame, whose rest never comes.
    client.receive(frame(id, FromAgent.output, encodeText('x')).slice(0, 7))
    if (expected.length === 1) happens(it)
    else {
      client.receive(encodeText('\0x'))
      heard.splice(0)
      happens(it)
    }
    expect(heard.filter((word) => word !== 'ready' || expected.includes(word))).toEqual(expected)
    command.write(Uint8Array.of(1))
    command.signal(15)
    expect(take()).toEqual([])
    heard.splice(0)
    client.receive(hello)
    client.receive(frame(id, FromAgent.ended, Uint8Array.of(0)))
    expect(heard.filter((word) => word.startsWith('ended'))).toEqual([])
    expect(client.ready).toBe(true)
  })
})

describe('flow', () => {
  it('sends no more input than there is room for, and the rest as it is taken', () => {
    const { start, take, taken, heard } = bench()
    const { command, id } = start()
    expect(command.write(new Uint8Array(WINDOW - 1))).toBe(true)
    expect(command.write(Uint8Array.of(1, 2, 3))).toBe(false)
    command.end()
    expect(take().map(({ kind, payload }) => [kind, payload.length])).toEqual([
      [ToAgent.input, WINDOW - 1],
      [ToAgent.input, 1],
    ])
    taken(id, 1)
    expect([take().map(({ payload }) => [...payload]), heard]).toEqual([[[2]], []])
    taken(id, WINDOW)
    // The end is behind all of it, once.
    expect([take().map(({ payload }) => [...payload]), heard]).toEqual([[[3], []], ['drained']])
    command.end()
    expect(command.write(Uint8Array.of(4))).toBe(true)
    expect(take()).toEqual([])
  })

  it('gives credit for what was shown, in halves of the window, by stream', () => {
    const { client, start, dones, take } = bench()
    const { id } = start()
    const half = WINDOW / 2
    client.receive(frame(id, FromAgent.output, new Uint8Array(half - 1)))
    client.receive(frame(id, FromAgent.errors, new Uint8Array(half)))
    client.receive(frame(id, FromAgent.output, new Uint8Array(1)))
    expect(take()).toEqual([])
    dones[0]!()
    expect(take()).toEqual([])
    dones[1]!()
    dones[2]!()
    expect(take()).toEqual([1, 0].map((output) => ({ id, kind: ToAgent.credit, payload: creditPayload(output as 0 | 1, half) })))
  })
})

it('signals, sizes and leaving', () => {
  const { client, start, take } = bench()
  const { command, id } = start()
  command.signal(15)
  command.resize({ rows: 50, columns: 132 })
  client.resizeConsole({ rows: 24, columns: 80 })
  client.leave(7)
  expect(take()).toEqual([
    { id, kind: ToAgent.signal, payload: Uint8Array.of(15) },
    { id, kind: ToAgent.resize, payload: numbers(50, 132) },
    { id: 0, kind: ToAgent.resize, payload: numbers(24, 80) },
    { id: 0, kind: ToAgent.leave, payload: Uint8Array.of(7) },
  ])
})
