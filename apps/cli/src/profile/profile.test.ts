/** Symbols out of all the places they come from, and what a profile looks like as a file. */
import { describe, expect, it } from 'vitest'
import { readKallsyms } from './kallsyms.ts'
import { folded, speedscope } from './profile-file.ts'
import { parseSystemMap, Symbols, symbolsOf } from './symbols.ts'

const ascii = (text: string): number[] => Array.from(text, (char) => char.charCodeAt(0))

/** A kernel's tables as scripts/kallsyms.c writes them, in the order before and since Linux 6.4, with the compression of one token. */
function kallsyms(
  symbols: readonly (readonly [name: string, type: string, address: bigint])[],
  order: 'old' | 'new',
  sequences = false,
): Uint8Array {
  const base = 0xffff_ffff_8100_0000n
  const bytes: number[] = ascii('something before').concat(0, 0, 0)
  const align = (): void =>
    void (bytes.length % 8 && bytes.push(...Array.from({ length: 8 - (bytes.length % 8) }, () => 0)))
  const put = (value: bigint, size: number): void => {
    for (let n = 0; n < size; n++) bytes.push(Number((BigInt.asUintN(64, value) >> BigInt(8 * n)) & 0xffn))
  }
  const addresses = (): void => {
    align()
    for (const [, , address] of symbols) put(address >= base ? base - 1n - address : address, 4)
    align()
    put(base, 8)
  }
  // Token 1 is "sys_"; printable characters are their own tokens, others are empty.
  const tokens = Array.from({ length: 256 }, (_, n) =>
    n === 1 ? 'sys_' : n > 32 && n < 127 ? String.fromCharCode(n) : '',
  )
  const compressed = (text: string): number[] => ascii(text.replaceAll('sys_', '\x01'))
  if (order === 'old') addresses()
  align()
  put(BigInt(symbols.length), 4)
  align()
  const start = bytes.length
  const markers: number[] = []
  for (const [n, [name, type]] of symbols.entries()) {
    if (n % 256 === 0) markers.push(bytes.length - start)
    const code = compressed(type + name)
    if (code.length > 127) bytes.push((code.length & 0x7f) | 0x80, code.length >> 7)
    else bytes.push(code.length)
    bytes.push(...code)
  }
  align()
  for (const marker of markers) put(BigInt(marker), 4)
  align()
  if (sequences) for (const n of symbols.keys()) put(BigInt(n), 3)
  align()
  const index: number[] = []
  const table = bytes.length
  for (const token of tokens) {
    index.push(bytes.length - table)
    bytes.push(...ascii(token), 0)
  }
  align()
  for (const offset of index) put(BigInt(offset), 2)
  if (order === 'new') addresses()
  return Uint8Array.from([...bytes, ...ascii('and behind')])
}

describe('the symbols that a kernel carries', () => {
  const many = Array.from(
    { length: 700 },
    (_, n) =>
      [
        `sys_call_${n}${n === 3 ? 'x'.repeat(200) : ''}`,
        n % 5 ? 'T' : 't',
        0xffff_ffff_8100_0000n + BigInt(16 * n),
      ] as const,
  )
  const symbols = [['current_task', 'A', 0x1fb80n] as const, ...many]
  it.each([
    { order: 'old' as const, sequences: false },
    { order: 'old' as const, sequences: true },
    { order: 'new' as const, sequences: true },
  ])('are read in the $order order (sequence numbers: $sequences)', ({ order, sequences }) => {
    const found = readKallsyms(kallsyms(symbols, order, sequences))
    expect(found).toEqual(symbols.map(([name, type, address]) => ({ name, type, address })))
  })
  it('are not found where there are none', () => {
    expect(readKallsyms(new Uint8Array(4096))).toBeUndefined()
    const damaged = kallsyms(symbols, 'old')
    damaged.fill(0xff, 3000, 3100)
    expect(readKallsyms(damaged)).toBeUndefined()
  })
})

describe('names of addresses', () => {
  const symbols = new Symbols([
    { name: 'second', type: 't', address: 0x2000n },
    { name: 'first', type: 'T', address: 0x1000n },
    { name: 'alias', type: 't', address: 0x2000n },
    { name: 'data', type: 'D', address: 0x1800n },
  ])
  it.each([
    { address: 0xfffn, name: undefined },
    { address: 0x1000n, name: 'first' },
    { address: 0x1fffn, name: 'first' },
    { address: 0x2000n, name: 'second' },
    { address: 0x2_000n + (1n << 21n), name: undefined },
  ])('$address is in $name', ({ address, name }) => expect(symbols.at(address)).toBe(name))
  it('are found by name, data as well', () => {
    expect(symbols.addressOf('data')).toBe(0x1800n)
    expect(symbols.addressOf('none')).toBeUndefined()
  })

  it('come from a System.map', async () => {
    const map = new TextEncoder().encode(
      'ffffffff81000000 T _stext\nffffffff81000010 t helper\n0000000000000000 A fixed\n',
    )
    expect(parseSystemMap(map)).toHaveLength(3)
    expect((await symbolsOf(map, {}))!.at(0xffff_ffff_8100_0014n)).toBe('helper')
  })
  it('come from an ELF', async () => {
    const file = new Uint8Array(0x200)
    const view = new DataView(file.buffer)
    file.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
    view.setBigUint64(40, 0x40n, true)
    view.setUint16(58, 64, true)
    view.setUint16(60, 3, true)
    const section = (n: number, type: number, offset: number, size: number, link: number): void => {
      view.setUint32(0x40 + 64 * n + 4, type, true)
      view.setBigUint64(0x40 + 64 * n + 24, BigInt(offset), true)
      view.setBigUint64(0x40 + 64 * n + 32, BigInt(size), true)
      view.setUint32(0x40 + 64 * n + 40, link, true)
    }
    section(1, 2, 0x180, 48, 2)
    section(2, 3, 0x1c0, 16, 0)
    file.set([0, ...ascii('main'), 0, ...ascii('table'), 0], 0x1c0)
    const symbol = (n: number, name: number, info: number, address: bigint): void => {
      view.setUint32(0x180 + 24 * n, name, true)
      view.setUint8(0x180 + 24 * n + 4, info)
      view.setUint16(0x180 + 24 * n + 6, 1, true)
      view.setBigUint64(0x180 + 24 * n + 8, address, true)
    }
    symbol(0, 1, 0x12, 0x40_1000n)
    symbol(1, 6, 0x11, 0x40_1800n)
    const found = (await symbolsOf(file, {}))!
    expect([found.at(0x40_1900n), found.addressOf('table'), found.size]).toEqual(['main', 0x40_1800n, 1])
  })
  it('do not come from anything else', async () => expect(await symbolsOf(new Uint8Array(1000), {})).toBeUndefined())
})

describe('a profile as a file', () => {
  const stacks = [
    ['sh;[kernel];fork', 3_000_000],
    ['[idle]', 1_500_400],
    ['sh;[user];0x401000', 400],
  ] as const
  it('has a line a stack, in microseconds', () => expect(folded(stacks)).toBe('sh;[kernel];fork 3000\n[idle] 1500\n'))
  it('is a sampled profile of speedscope', () => {
    const { shared, profiles } = JSON.parse(speedscope(stacks)) as {
      shared: { frames: { name: string }[] }
      profiles: { samples: number[][]; weights: number[]; endValue: number }[]
    }
    const [profile] = profiles
    expect(profile!.samples.map((sample) => sample.map((n) => shared.frames[n]!.name).join(';'))).toEqual(
      stacks.map(([stack]) => stack),
    )
    expect(profile!.weights.reduce((a, b) => a + b)).toBe(profile!.endValue)
  })
})
