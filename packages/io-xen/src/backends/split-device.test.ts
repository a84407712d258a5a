/** Both halves of a device find each other, part, and find each other again. (Xen, "public/io/xenbus.h") */

import { describe, expect, it } from 'vitest'
import { DOMAIN, splitBench } from './backends.test.support.ts'
import { STATE, type FrontEnd, type SplitDriver } from './split-device.ts'

/** A driver that notes what it is asked, and parts when the test says so. */
function bench({ refuses = undefined as string | undefined, drains = false } = {}) {
  const asked: string[] = []
  const parted: (() => void)[] = []
  let guest: FrontEnd | undefined
  const made = splitBench('vbd', (): SplitDriver => ({
    type: 'vbd',
    handle: 3,
    frontend: { 'virtual-device': 3 },
    backend: { mode: 'w' },
    connect(connected) {
      asked.push('connect')
      guest = connected
      connected.pages([connected.number('ring-ref') ?? 0])
      connected.port(connected.number('event-channel') ?? 0, () => void asked.push('event'))
      return refuses ?? { sectors: 8 }
    },
    start: () => void asked.push('start'),
    disconnect(then) {
      asked.push('disconnect')
      if (drains) parted.push(then)
      else then()
    },
    abandon: () => void asked.push('abandon'),
  }))
  asked.length = made.states.length = 0
  const port = made.port()
  const offer = (state: number = STATE.initialised): void =>
    made.write({ 'ring-ref': made.page().reference, 'event-channel': port, state })
  return { ...made, asked, parted, port, offer, guest: () => guest! }
}

describe('the halves of a device', () => {
  it('find what the toolstack wrote, each in its own folder', () => {
    const { store, folder, backend } = bench()
    const control = store.connect(0, () => {})
    const all = (path: string): Record<string, string> =>
      Object.fromEntries(
        (control.list(path) as string[]).map((name) => [
          name,
          (control.read(`${path}/${name}`) as { value: string }).value,
        ]),
      )
    expect(all(folder)).toEqual({ backend, 'backend-id': '0', state: '1', 'virtual-device': '3' })
    expect(all(backend)).toEqual({ frontend: folder, 'frontend-id': '1', online: '1', state: '2', mode: 'w' })
    expect(control.permissions(folder)).toEqual([
      { domain: DOMAIN, read: false, write: false },
      { domain: 0, read: true, write: false },
    ])
  })

  it('connect, exchange events, and part when the guest closes', () => {
    const { offer, write, asked, states, read, uses, events, port, notified } = bench()
    offer()
    expect([asked, states, read('sectors'), uses.size]).toEqual([['connect', 'start'], ['4'], '8', 1])
    events.send(port)
    expect(asked.at(-1)).toBe('event')
    write({ state: STATE.closing })
    write({ state: STATE.closed })
    expect([states, uses.size, events.status(port)]).toEqual([
      ['4', '5', '6'],
      0,
      expect.objectContaining({ state: 'unbound', remote: 0 }),
    ])
    expect(notified(port)).toBe(false)
    // And once more.
    write({ state: STATE.initialising })
    offer(STATE.connected)
    expect(states).toEqual(['4', '5', '6', '2', '4'])
  })

  it('part only when nothing is under way, and then look again at what the guest wants', () => {
    const { offer, write, parted, states, uses } = bench({ drains: true })
    offer()
    write({ state: STATE.closing })
    write({ state: STATE.closed })
    expect([states, uses.size]).toEqual([['4'], 1])
    parted.shift()!()
    expect([states, uses.size]).toEqual([['4', '5'], 0])
    parted.shift()!()
    expect(states).toEqual(['4', '5', '6'])
  })

  it.each([
    {
      what: 'its folder is gone',
      act: ({ guest, folder }: { guest: { remove(path: string): void }; folder: string }) => guest.remove(folder),
    },
    {
      what: 'its state is no number',
      act: ({ guest, folder }: { guest: { write(path: string, value: string): void }; folder: string }) =>
        guest.write(`${folder}/state`, 'x'),
    },
  ])('part when $what', ({ act }) => {
    const made = bench()
    made.offer()
    act({ guest: made.store.connect(DOMAIN, () => {}) as never, folder: made.folder })
    expect([made.states, made.uses.size]).toEqual([['4', '6'], 0])
  })

  it('stay apart where the driver refuses, with the reason in the log and in the store', () => {
    const { offer, states, uses, log, store, events, port } = bench({ refuses: 'no such ring' })
    for (let n = 0; n < 20; n++) offer()
    expect([new Set(states), uses.size]).toEqual([new Set(['5']), 0])
    expect(log.lines).toHaveLength(10)
    expect(store.connect(0, () => {}).read('/local/domain/0/error/backend/vbd/1/3/error')).toMatchObject({
      value: 'no such ring',
    })
    expect(events.status(port)).toMatchObject({ state: 'unbound' })
  })

  it.each([
    { what: 'a page that is not granted', nodes: { 'ring-ref': 7 } },
    { what: 'no reference', nodes: { 'ring-ref': '' } },
    { what: 'a number beyond 32 bits', nodes: { 'ring-ref': 2 ** 32 } },
    { what: 'a negative number', nodes: { 'ring-ref': -1 } },
  ])('do not connect by $what', ({ nodes }) => {
    const made = splitBench('vbd', () => ({
      ...{ type: 'vbd' as const, handle: 3, frontend: {}, backend: {} },
      connect: (connected: FrontEnd) => (connected.pages([connected.number('ring-ref') ?? 0]) ? {} : 'refused'),
      start: () => {},
      disconnect: (then: () => void) => then(),
      abandon: () => {},
    }))
    made.write({ ...nodes, state: STATE.initialised })
    expect(made.read('state')).toBe(String(STATE.closing))
  })

  it('part at the end of a domain, and the next one finds a new device', () => {
    const { offer, backends, asked, uses, read, write } = bench()
    offer()
    asked.length = 0
    backends.end()
    expect([asked, uses.size]).toEqual([['abandon'], 0])
    write({ state: STATE.closed })
    expect(asked).toEqual(['abandon'])
    backends.begin()
    expect([read('state'), read('sectors')]).toEqual(['2', undefined])
  })
})

describe("domain 0's end of a channel", () => {
  it('is no one else’s: a port that the guest closed and opened again hears nothing', () => {
    const { events, port, notified } = bench()
    const end = events.bindLocal(port, () => {})!
    end.notify()
    expect(notified(port)).toBe(true)
    events.close(port)
    const next = events.allocateUnbound(0) as number
    const heard: string[] = []
    events.bindLocal(next, () => void heard.push('event'))
    end.notify()
    end.close()
    events.send(next)
    expect([next, notified(port), heard]).toEqual([port, false, ['event']])
  })

  it.each([
    {
      what: 'waits for another domain',
      make: (events: { allocateUnbound(remote: number): unknown }) => events.allocateUnbound(5),
    },
    { what: 'is a signal between vCPUs', make: (events: { bindIpi(vcpu: number): unknown }) => events.bindIpi(0) },
    { what: 'does not exist', make: () => 77 },
    { what: 'is none', make: () => 0 },
  ])('does not join a port that $what', ({ make }) => {
    const { events } = bench()
    expect(events.bindLocal(make(events as never) as number, () => {})).toBeUndefined()
  })

  it('joins a port once', () => {
    const { events, port } = bench()
    expect([events.bindLocal(port, () => {}) === undefined, events.bindLocal(port, () => {}) === undefined]).toEqual([
      false,
      true,
    ])
  })
})
