import { describe, expect, it } from 'vitest'
import { formatSize, parseSize } from '../index.ts'

describe('sizes', () => {
  it.each([
    { text: '512 MiB', bytes: 512 * 2 ** 20 },
    { text: '1GiB', bytes: 2 ** 30 },
    { text: ' 4 KiB ', bytes: 4096 },
    { text: '1.5 GiB', bytes: 1.5 * 2 ** 30 },
    { text: '2 TiB', bytes: 2 ** 41 },
    { text: '123', bytes: 123 },
    { text: '0', bytes: 0 },
    { text: 65536, bytes: 65536 },
  ])('$text is $bytes bytes', ({ text, bytes }) => expect(parseSize(text)).toBe(bytes))

  it.each([
    { text: 'lots', problem: 'is not a size' },
    { text: '', problem: 'is not a size' },
    { text: '-1 MiB', problem: 'is not a size' },
    { text: '1 MB', problem: 'did you mean 1 MiB?' },
    { text: '1 mib', problem: 'did you mean 1 MiB?' },
    { text: '1 parsec', problem: 'is not a unit of size (B, KiB, MiB, GiB, TiB)' },
    { text: '1.3 B', problem: 'not a whole number of bytes' },
    { text: 1.5, problem: 'not a whole number of bytes' },
    { text: -4096, problem: 'not a whole number of bytes' },
    { text: Infinity, problem: 'not a whole number of bytes' },
    { text: '99999999 TiB', problem: 'not a whole number of bytes' },
  ])('$text: $problem', ({ text, problem }) => {
    expect(parseSize(text)).toEqual({ problem: expect.stringContaining(problem) })
  })

  it.each([
    [2 ** 29, '512 MiB'],
    [1.5 * 2 ** 30, '1536 MiB'],
    [4097, '4097 B'],
    [0, '0 B'],
  ])('%d shows as %s, and reads back', (bytes, text) => {
    expect(formatSize(bytes)).toBe(text)
    expect(parseSize(text)).toBe(bytes)
  })
})
