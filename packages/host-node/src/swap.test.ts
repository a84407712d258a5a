import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { openSwap } from './swap.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-swap-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const at = (name: string): string => join(folder, name)
const pageOf = (value: number): Uint8Array => new Uint8Array(4096).map((_, index) => (value * 31 + index * 7) & 0xff)
const read = (swap: ReturnType<typeof openSwap>, page: number): Uint8Array => {
  const into = new Uint8Array(4096)
  swap.file!.readNow(page, into)
  return into
}

describe('a swap file', () => {
  it('gives back what was written last, now and later', async () => {
    const swap = openSwap(at('plain'), 2 ** 20)
    expect(swap.file!.pages).toBe(256)
    for (const page of [0, 1, 255]) swap.file!.write(page, pageOf(page))
    swap.file!.write(1, pageOf(77))
    expect([read(swap, 0), read(swap, 1), new Uint8Array(await swap.file!.read(255))]).toEqual([0, 77, 255].map(pageOf))
    swap.close()
    expect(existsSync(at('plain'))).toBe(false)
    swap.close()
  })

  it('can be read by nobody else, and no two pages of the same content look alike', () => {
    const swap = openSwap(at('secret'), 2 ** 20)
    const page = new Uint8Array(4096).fill(0x41)
    for (const slot of [0, 1]) swap.file!.write(slot, page)
    const bytes = readFileSync(at('secret'))
    expect([bytes.includes('AAAA'), statSync(at('secret')).mode & 0o777]).toEqual([false, 0o600])
    expect(bytes.subarray(4096, 8192).equals(bytes.subarray(8208, 12304))).toBe(false)
    swap.close()
  })

  const damaged: [string, (file: string) => void, string][] = [
    ['a bit of it changed', (file) => flip(file, 4096 + 100), 'page 0 does not match its checksum'],
    ['its checksum changed', (file) => flip(file, 4096 + 4096 + 3), 'page 0 does not match its checksum'],
    ['it became short', (file) => truncateSync(file, 4096 + 50), 'too short: page 0 has 50 of 4112 bytes'],
    ['it became empty', (file) => truncateSync(file, 0), 'too short: page 0 has 0 of 4112 bytes'],
    ['an older page was put back', (file) => putBack(file), 'page 0 does not match its checksum'],
  ]
  let old = Buffer.alloc(0)
  const putBack = (file: string): void => writeFileSync(file, old)
  it.each(damaged)('is found out when %s', async (_, damage, message) => {
    const swap = openSwap(at('damaged'), 2 ** 20)
    swap.file!.write(0, pageOf(1))
    old = readFileSync(at('damaged'))
    swap.file!.write(0, pageOf(2))
    damage(at('damaged'))
    expect(() => read(swap, 0)).toThrow(message)
    await expect(swap.file!.read(0)).rejects.toThrow(message)
    swap.close()
  })

  it('is found out when two pages changed places', () => {
    const swap = openSwap(at('moved'), 2 ** 20)
    for (const page of [0, 1]) swap.file!.write(page, pageOf(page))
    const bytes = readFileSync(at('moved'))
    writeFileSync(
      at('moved'),
      Buffer.concat([bytes.subarray(0, 4096), bytes.subarray(8208), bytes.subarray(4096, 8208)]),
    )
    expect(() => read(swap, 0)).toThrow('does not match')
    swap.close()
  })

  it('reads the pages of a group at once: they come without the file, but for those that were written again', async () => {
    const swap = openSwap(at('group'), 100 * 4096)
    const { file } = swap
    for (let page = 14; page < 100; page++) if (page !== 20) file!.write(page, pageOf(page))
    await file!.read(17)
    const near = (): number[] => Array.from({ length: 100 }, (_, page) => page).filter((page) => file!.isNear!(page))
    expect(near()).toEqual([16, 17, 18, 19, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31])
    file!.write(18, pageOf(3))
    truncateSync(at('group'), 0)
    expect([file!.isNear!(18), read(swap, 19), await file!.read(31)]).toEqual([
      false,
      pageOf(19),
      Buffer.from(pageOf(31)),
    ])
    expect(() => read(swap, 18)).toThrow('too short')
    expect(() => read(swap, 15)).toThrow('too short')
    swap.close()
  })

  it('keeps the last groups that it read, and ends with the file', async () => {
    const swap = openSwap(at('groups'), 9 * 16 * 4096 + 5 * 4096)
    for (let page = 0; page < swap.file!.pages; page++) swap.file!.write(page, pageOf(page))
    for (let group = 0; group <= 9; group++) await swap.file!.read(group * 16 + 2)
    expect([0, 16, 31, 32, 144, 148].map((page) => swap.file!.isNear!(page))).toEqual([
      ...[false, false, false, true, true, true],
    ])
    swap.close()
  })

  const refused: [string, (file: string) => void, string][] = [
    ['is something else', (file) => writeFileSync(file, 'my thesis'), 'it has 9 B of something else'],
    ['is a folder', (file) => mkdirSync(file), 'EISDIR'],
    ['is in a folder that does not exist', () => {}, 'ENOENT'],
    ['is a link', (file) => symlinkSync(at('elsewhere'), file), 'ELOOP'],
    [
      'is used by another process',
      (file) => writeFileSync(file, 'nonroot swap file of process 1\n'),
      'process 1 uses it',
    ],
  ]
  it.each(refused)('is refused if it %s', (what, make, message) => {
    const file = what.includes('does not exist') ? at('none/file') : at(what.replaceAll(' ', '-'))
    make(file)
    expect(() => openSwap(file, 2 ** 20)).toThrow(message)
    if (what === 'is something else') expect(readFileSync(file, 'utf8')).toBe('my thesis')
  })

  it('is refused to a second user in this process, and taken over from one that has ended', () => {
    const swap = openSwap(at('twice'), 2 ** 20)
    expect(() => openSwap(at('twice'), 2 ** 20)).toThrow(`process ${process.pid} uses it`)
    swap.close()
    writeFileSync(at('left'), `nonroot swap file of process ${2 ** 22 + 5}\n`)
    openSwap(at('left'), 2 ** 20).close()
    expect(existsSync(at('left'))).toBe(false)
  })
})

describe('compression of pages', () => {
  it('is undone exactly, and says when it cannot be', () => {
    const swap = openSwap(undefined)
    const into = new Uint8Array(4096)
    const text = new TextEncoder().encode('memory '.repeat(600).slice(0, 4096))
    const packed = swap.compress(text)
    expect(packed.length).toBeLessThan(100)
    swap.expand(packed, into)
    expect(into).toEqual(text)
    expect(() => swap.expand(new Uint8Array(10), into)).toThrow()
    expect(() => swap.expand(swap.compress(new Uint8Array(9)), into)).toThrow('a compressed page has 9 bytes')
    expect(swap.file).toBe(undefined)
  })

  it('is not tried for pages that look random', () => {
    const swap = openSwap(undefined)
    const random = new Uint8Array(4096)
    for (let at_ = 0, x = 1; at_ < 4096; at_++) random[at_] = (x = Math.imul(x ^ (x >>> 13), 0x5bd1_e995) + 7) >>> 24
    expect(swap.compress(random).length).toBeGreaterThanOrEqual(4096)
    // Half of it is random: that is worth compressing.
    random.fill(0, 1024, 3072)
    expect(swap.compress(random).length).toBeLessThan(2300)
  })
})

function flip(file: string, at_: number): void {
  const bytes = readFileSync(file)
  bytes[at_]! ^= 1
  writeFileSync(file, bytes)
}
