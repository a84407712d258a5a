/** The store, as a guest's own messages meet it; rules that an advisory stands behind carry its number. */

import { describe, expect, it } from 'vitest'
import { hvmBench, storeBench } from '../io-xen.test.support.ts'
import { MESSAGE as M } from './messages.ts'
import { isPath, QUOTA, type StoreNode } from './store.ts'

/** A domain whose own folder it may change. */
function domain() {
  const bench = storeBench()
  const control = bench.store.connect(0, () => {})
  control.write('/local/domain/1', '')
  control.setPermissions('/local/domain/1', [{ domain: 1, read: false, write: false }])
  control.write('/local/domain/2/secret', 'x')
  const ask = (type: number, text: string, transaction = 0): string => {
    bench.send(type, text, 7, transaction)
    const [reply] = bench.receive().filter((message) => message.type !== M.watchEvent)
    return reply ? (reply.type === M.error ? `error ${reply.text}` : reply.text) : 'nothing'
  }
  return { ...bench, control, ask }
}

describe('messages', () => {
  it.each<[what: string, type: number, text: string, answer: string]>([
    ['write and its answer', M.write, 'data/a\0value', 'OK\0'],
    ['a value with zeros', M.write, '/local/domain/1/b\0v\0\0', 'OK\0'],
    ['mkdir', M.mkdir, 'dir\0', 'OK\0'],
    ['read of what is not there', M.read, 'none\0', 'error ENOENT\0'],
    ['read of a folder of another domain', M.read, '/local/domain/2/secret\0', 'error EACCES\0'],
    ['whether something is there that one may not see', M.read, '/local/domain/2/none\0', 'error EACCES\0'],
    ['write elsewhere', M.write, '/tool/x\0v', 'error EACCES\0'],
    ['a path with letters that no path has', M.read, 'a b\0', 'error EINVAL\0'],
    ['a path that ends in a slash', M.read, '/local/\0', 'error EINVAL\0'],
    ['no path at all', M.read, '', 'error EINVAL\0'],
    ['the path of a domain', M.getDomainPath, '5\0', '/local/domain/5\0'],
    ['a domain that is no number', M.getDomainPath, 'x\0', 'error EINVAL\0'],
    ['permissions', M.getPermissions, '/local/domain/1\0', 'n1\0'],
    ['XSA-115: whether a domain was introduced', M.isIntroduced, '1\0', 'error EACCES\0'],
    ['introducing a domain', M.introduce, '5\0', 'error EACCES\0'],
    ['a type that does not exist', 99, '', 'error ENOSYS\0'],
    ['removing what is not there', M.remove, 'none\0', 'OK\0'],
    ['removing the root', M.remove, '/\0', 'error EINVAL\0'],
  ])('%s', (_what, type, text, answer) => {
    expect(domain().ask(type, text)).toBe(answer)
  })

  it('are answered with their own number and transaction', () => {
    const { send, receive } = storeBench()
    send(M.getDomainPath, '1\0', 0xdead_beef, 0x1234_5678)
    expect(receive()).toEqual([
      { type: M.getDomainPath, id: 0xdead_beef, transaction: 0x1234_5678, text: '/local/domain/1\0' },
    ])
  })

  it('may come in pieces, and many at once', () => {
    const { put, header, receive } = storeBench()
    const message = [...header(M.getDomainPath, 1, 0, 2), 49, 0]
    for (const byte of message) put(Uint8Array.of(byte))
    put(Uint8Array.from([...message, ...message, ...message]))
    expect(receive()).toHaveLength(4)
  })

  it('that are too long close the ring, for good and for nobody else', () => {
    const { put, header, send, receive, log } = storeBench()
    put(header(M.write, 1, 0, 4097))
    send(M.getDomainPath, '1\0')
    expect(receive()).toEqual([])
    expect(log.lines).toEqual([expect.stringContaining('4097 bytes')])
  })

  it.each([0x7fff_ffff, 0x8000_0000, 0xffff_ffff])('XSA-420: have no length of %i, whatever its sign', (length) => {
    const { put, header, send, receive, log } = storeBench()
    put(header(M.write, 1, 0, length))
    send(M.getDomainPath, '1\0')
    expect([receive(), log.lines.length]).toEqual([[], 1])
  })

  it.each([
    { length: 3056, answer: 'OK\0' },
    { length: 3057, answer: 'error EINVAL\0' },
  ])('XSA-323: a relative path of $length characters is judged with what comes before it', ({ length, answer }) => {
    const { ask } = domain()
    const path = 'a'.repeat(length)
    expect([ask(M.write, `${path}\0v`), ask(M.watch, `${path}\0t\0`)]).toEqual([answer, answer])
    expect(ask(M.getDomainPath, '1\0')).toBe('/local/domain/1\0')
  })

  it('are none where the ring says that it holds more than it can', () => {
    const { memory, events, ring, log } = storeBench()
    memory.writeU32(4096 + 2052, 1025)
    events.send(ring.port)
    expect(log.lines).toHaveLength(1)
  })
})

describe('watches', () => {
  it('fire at once, then at changes below, with the path as it was asked for', () => {
    const { send, receive, ask } = domain()
    send(M.watch, 'data\0token\0')
    expect(receive().map(({ type, text }) => [type, text])).toEqual([
      [M.watch, 'OK\0'],
      [M.watchEvent, 'data\0token\0'],
    ])
    send(M.write, 'data/x/y\0v')
    expect(receive().map(({ text }) => text)).toContain('data/x/y\0token\0')
    expect(ask(M.unwatch, 'data\0token\0')).toBe('OK\0')
    expect(ask(M.unwatch, 'data\0token\0')).toBe('error ENOENT\0')
  })

  it('XSA-115: say nothing of what the domain may not see, and special ones are privileged', () => {
    const { send, receive, ask, control } = domain()
    send(M.watch, '/local/domain/2\0t\0')
    receive()
    control.write('/local/domain/2/secret', 'changed')
    expect(receive()).toEqual([])
    expect(ask(M.watch, '@releaseDomain\0t\0')).toBe('error EACCES\0')
  })

  it('XSA-326, XSA-324: are counted, and their tokens short', () => {
    const { ask } = domain()
    for (let n = 0; n < QUOTA.watches; n++) expect(ask(M.watch, `w\0${n}\0`)).toBe('OK\0')
    expect(ask(M.watch, 'w\0more\0')).toBe('error E2BIG\0')
    expect(domain().ask(M.watch, `w\0${'t'.repeat(QUOTA.token + 1)}\0`)).toBe('error E2BIG\0')
  })

  it('XSA-330: a reset frees them', () => {
    const { ask } = domain()
    for (let n = 0; n < QUOTA.watches; n++) ask(M.watch, `w\0${n}\0`)
    expect(ask(M.resetWatches, '\0')).toBe('OK\0')
    expect(ask(M.watch, 'w\0more\0')).toBe('OK\0')
  })
})

describe('transactions', () => {
  it('show their own changes, to others when they end', () => {
    const { ask } = domain()
    const id = Number.parseInt(ask(M.transactionStart, '\0'), 10)
    expect(ask(M.write, 'a\0v', id)).toBe('OK\0')
    expect([ask(M.read, 'a\0', id), ask(M.read, 'a\0')]).toEqual(['v', 'error ENOENT\0'])
    expect([ask(M.transactionEnd, 'T\0', id), ask(M.read, 'a\0'), ask(M.transactionEnd, 'T\0', id)]).toEqual([
      'OK\0',
      'v',
      'error ENOENT\0',
    ])
  })

  it('are to be tried again where something changed meanwhile, and leave nothing', () => {
    const { ask, control } = domain()
    const id = Number.parseInt(ask(M.transactionStart, '\0'), 10)
    ask(M.write, 'a\0v', id)
    control.write('/local/domain/2/secret', 'y')
    expect([ask(M.transactionEnd, 'T\0', id), ask(M.read, 'a\0')]).toEqual(['error EAGAIN\0', 'error ENOENT\0'])
  })

  it('are counted', () => {
    const { ask } = domain()
    for (let n = 0; n < QUOTA.transactions; n++) expect(ask(M.transactionStart, '\0')).toMatch(/^\d+\0$/)
    expect(ask(M.transactionStart, '\0')).toBe('error ENOSPC\0')
  })
})

describe('quotas and rights', () => {
  it('XSA-326: nodes are counted, those in between too', () => {
    const { ask } = domain()
    let made = 1
    while (made < 2 * QUOTA.nodes && ask(M.write, `n/${made}\0`) === 'OK\0') made++
    // The folder itself, and the one above the numbers.
    expect(made).toBe(QUOTA.nodes - 1)
    expect(ask(M.write, 'n/1\0again')).toBe('OK\0')
    expect(ask(M.remove, 'n\0')).toBe('OK\0')
    expect(ask(M.write, 'n/1\0')).toBe('OK\0')
  })

  it('XSA-421: nodes are counted in a transaction, too', () => {
    const { ask } = domain()
    const id = Number.parseInt(ask(M.transactionStart, '\0'), 10)
    let made = 1
    while (made < 2 * QUOTA.nodes && ask(M.write, `n/${made}\0`, id) === 'OK\0') made++
    expect(made).toBe(QUOTA.nodes - 1)
    expect(ask(M.remove, 'n/1\0', id)).toBe('OK\0')
    expect([ask(M.write, 'n/new\0', id), ask(M.write, 'n/more\0', id)]).toEqual(['OK\0', 'error EQUOTA\0'])
    expect([ask(M.transactionEnd, 'T\0', id), ask(M.write, 'more\0')]).toEqual(['OK\0', 'error EQUOTA\0'])
  })

  it('XSA-414, XSA-415, XSA-425: what is refused leaves nothing, nor half of a path', () => {
    const { ask, store } = domain()
    for (let n = 0; n < QUOTA.nodes - 3; n++) ask(M.write, `n/${n}\0`)
    const before = store.root
    const refused = [
      ask(M.write, 'a/b/c/d\0v'),
      ask(M.mkdir, 'a/b/c/d\0'),
      ask(M.write, `a\0${'v'.repeat(QUOTA.valueBytes + 1)}`),
      ask(M.setPermissions, 'n\0n1\0x2\0'),
      ask(M.setPermissions, 'none\0n1\0'),
      ask(M.remove, '/local/domain/2\0'),
    ]
    expect(refused.filter((answer) => !answer.startsWith('error '))).toEqual([])
    expect(store.root).toBe(before)
    // One more fits, which a half of any of these would have taken.
    expect([ask(M.write, 'a\0v'), ask(M.write, 'b\0v')]).toEqual(['OK\0', 'error EQUOTA\0'])
  })

  it('XSA-416, XSA-481, XSA-484: a message that fails leaves no node, count, watch or transaction, in a transaction or outside', () => {
    const { ask, store } = domain()
    ask(M.write, 'data/a\0value')
    ask(M.watch, 'data\0token\0')
    const inside = Number(ask(M.transactionStart, '\0').slice(0, -1))
    const [root, nodes] = [store.root, store.nodesOf(1)]
    const long = 'x'.repeat(QUOTA.valueBytes + 1)
    const failing: [type: number, text: string][] = [
      [M.read, 'none\0'],
      [M.directory, 'none\0'],
      [M.getPermissions, 'none\0'],
      [M.write, '/tool/x\0v'],
      [M.write, `data/b/c/d\0${long}`],
      [M.write, `data/a\0${long}`],
      [M.write, 'data//b\0v'],
      [M.write, 'data/b'],
      [M.mkdir, '/tool/x\0'],
      [M.remove, '/tool/x\0'],
      [M.setPermissions, 'data/a\0x1\0'],
      [M.setPermissions, 'data/a\0n0\0'],
      [M.setPermissions, 'data/a\0n1\0r2\0r3\0r4\0r5\0r6\0'],
      [M.setPermissions, 'none\0n1\0'],
      [M.watch, 'data\0token\0'],
      [M.watch, `data\0${'t'.repeat(QUOTA.token + 1)}\0`],
      [M.watch, '@releaseDomain\0t\0'],
      [M.watch, 'a b\0t\0'],
      [M.unwatch, 'data\0other\0'],
      [M.transactionEnd, 'X\0'],
    ]
    for (const transaction of [0, inside, 77])
      for (const [type, text] of failing)
        expect([ask(type, text, transaction).startsWith('error '), type, text]).toEqual([true, type, text])
    // The same tree, not only an equal one.
    expect([store.root === root, store.nodesOf(1)]).toEqual([true, nodes])
    expect([ask(M.transactionEnd, 'T\0', inside), store.root === root]).toEqual(['OK\0', true])
    expect([ask(M.unwatch, 'data\0token\0'), ask(M.unwatch, 'data\0token\0')]).toEqual(['OK\0', 'error ENOENT\0'])
    const starts = Array.from({ length: QUOTA.transactions + 1 }, () =>
      ask(M.transactionStart, '\0').startsWith('error'),
    )
    expect(starts.indexOf(true)).toBe(QUOTA.transactions)
  })
  it('XSA-416: answers that are not taken are bounded: nothing more is taken from the ring', () => {
    const { memory, put, header, ask } = domain()
    ask(M.write, `data\0${'v'.repeat(QUOTA.valueBytes)}`)
    const read = [...header(M.read, 1, 0, 5), ...new TextEncoder().encode('data\0')]
    const consumed = (): number => memory.readU32(4096 + 2048)!
    for (let time = 0; time < 300; time++) put(Uint8Array.from(read))
    const stopped = consumed()
    put(Uint8Array.from(read))
    expect(consumed()).toBe(stopped)
  })
  it('XSA-418: no path is too deep to be written, read and removed', () => {
    const { ask, store } = domain()
    const deep = Array.from({ length: 900 }, () => 'd').join('/')
    expect([ask(M.write, `${deep}\0v`), ask(M.read, `${deep}\0`)]).toEqual(['OK\0', 'v'])
    expect(store.nodesOf(1)).toBe(901)
    expect([ask(M.remove, 'd\0'), store.nodesOf(1)]).toEqual(['OK\0', 1])
  })

  it('a value has an end', () => {
    const { ask } = domain()
    expect(ask(M.write, `a\0${'v'.repeat(QUOTA.valueBytes)}`)).toBe('OK\0')
    expect(ask(M.write, `a\0${'v'.repeat(QUOTA.valueBytes + 1)}`)).toBe('error ENOSPC\0')
  })

  it('XSA-352: a node keeps its owner', () => {
    const { ask } = domain()
    ask(M.write, 'a\0v')
    expect(ask(M.setPermissions, 'a\0n2\0')).toBe('error EACCES\0')
    expect(ask(M.setPermissions, 'a\0n1\0r2\0')).toBe('OK\0')
    expect(ask(M.getPermissions, 'a\0')).toBe('n1\0r2\0')
    expect(ask(M.setPermissions, 'a\0x1\0')).toBe('error EINVAL\0')
    expect(ask(M.setPermissions, `a\0n1\0${'r2\0'.repeat(QUOTA.permissions)}`)).toBe('error ENOSPC\0')
  })

  it('XSA-353: the root is a node like any other', () => {
    const { ask } = domain()
    expect([ask(M.directory, '/\0'), ask(M.setPermissions, '/\0b1\0'), ask(M.write, '/\0v')]).toEqual([
      'error EACCES\0',
      'error EACCES\0',
      'error EACCES\0',
    ])
  })

  it('XSA-72: an answer that is too long is an error; in parts it comes', () => {
    const { ask } = domain()
    for (let n = 0; n < 60; n++) ask(M.write, `long/${'n'.repeat(80)}${n}\0`)
    expect(ask(M.directory, 'long\0')).toBe('error E2BIG\0')
    let all = ''
    for (let part = 'more'; part !== '' && !all.endsWith('\0\0'); all += part)
      part = ask(M.directoryPart, `long\0${all.length}\0`).replace(/^\d+\0/, '')
    expect(all.split('\0').filter(Boolean)).toHaveLength(60)
  })
})

describe('a domain that has ended', () => {
  it('XSA-322, XSA-417, XSA-419, XSA-483: leaves no node, right or count to the next one of its number', () => {
    const { model, platform } = hvmBench(1)
    const { store } = model
    const all = ({ value, permissions, children }: StoreNode): unknown => ({
      ...{ value, permissions },
      children: Object.fromEntries([...children].sort().map(([name, child]) => [name, all(child)])),
    })
    const before = [all(store.root), store.nodesOf(1)]
    const guest = store.connect(1, () => {})
    expect([
      guest.write('/local/domain/1/data/x/y', 'v'),
      guest.write('/local/domain/1/attr', 'changed'),
      guest.setPermissions('/local/domain/1/data', [
        { domain: 1, read: false, write: false },
        { domain: 5, read: true, write: true },
      ]),
      guest.remove('/local/domain/1/control/sysrq'),
    ]).toEqual(Array(4).fill(undefined))
    expect(store.nodesOf(1)).not.toBe(before[1])
    platform.end()
    platform.begin()
    expect([all(store.root), store.nodesOf(1)]).toEqual(before)
  })
})

describe('paths', () => {
  it.each<[string, boolean]>([
    ['/', true],
    ['/a', true],
    ['/a/b-c_d@e', true],
    ['', false],
    ['a', false],
    ['/a//b', false],
    ['/a/', false],
    ['/a b', false],
    [`/${'a'.repeat(3071)}`, true],
    [`/${'a'.repeat(3072)}`, false],
    ['@releaseDomain', true],
    ['@anything', false],
  ])('%s: %s', (path, valid) => expect(isPath(path)).toBe(valid))
})
