import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { LinePrinter } from './line-printer.ts'
import type { LineSource } from './line-printer.ts'

let out: string
const printer = (isScreen: boolean): LinePrinter =>
  new LinePrinter({ isScreen, write: (bytes, done) => ((out += Buffer.from(bytes).toString('latin1')), done()) })
const feed = (source: LineSource, text: string): void => source.feed(Buffer.from(text, 'latin1'), () => {})

beforeEach(() => {
  out = ''
  vi.useFakeTimers()
})
afterEach(() => void vi.useRealTimers())

describe('lines of several VMs', () => {
  it('are whole, whatever pieces they come in', () => {
    const all = printer(false)
    const [web, db] = [all.add('web', 0, 3), all.add('db', 1, 3)]
    feed(web, 'o')
    feed(db, 'two\r\nthr')
    feed(web, 'ne\n\n')
    feed(db, 'ee\n')
    expect(out).toBe('db | two\nweb| one\nweb| \ndb | three\n')
  })

  it('show a prompt after a while, and end it where another VM goes on', () => {
    const all = printer(false)
    const [web, db] = [all.add('web', 0, 3), all.add('db', 1, 3)]
    feed(web, '# ')
    expect(out).toBe('')
    vi.runAllTimers()
    feed(web, 'ls\n# ')
    vi.runAllTimers()
    feed(db, 'x\n')
    feed(web, 'pwd\n')
    expect(out).toBe('web| # ls\nweb| # \ndb | x\nweb| pwd\n')
  })

  it('show what is left at the end', () => {
    const web = printer(false).add('web', 0, 3)
    feed(web, 'bye')
    web.flush()
    web.flush()
    expect(out).toBe('web| bye')
  })

  it('are cut where they have no end', () => {
    feed(printer(false).add('web', 0, 3), 'x'.repeat(20_000))
    expect(out.split('\n').map(({ length }) => length)).toEqual([8197, 8197, 0])
  })

  it.each([
    ['colours stay', '\x1b[31mred\x1b[0m', '\x1b[31mred\x1b[0m'],
    ['moves of the cursor go', 'a\x1b[2J\x1b[1;1Hb\x1b[6n', 'ab'],
    ['titles go', 'a\x1b]0;title\x07b\x1b]0;t\x1b\\c', 'abc'],
    ['control characters go', 'a\x07\x08\rb\x7fc\td', 'abc\td'],
    ['what has no end goes', 'a\x1b[12;', 'a'],
    ['an escape at the end goes', 'a\x1b', 'a'],
  ])('on a screen: %s', (_, text, shown) => {
    feed(printer(true).add('db', 1, 3), `${text}\n`)
    expect(out).toBe(`\x1b[33mdb | \x1b[0m${shown}\x1b[0m\n`)
  })
})
