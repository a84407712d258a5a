/** I/O bitmaps bit by bit, at the bounds of both. (SDM Vol. 3C, "I/O-Bitmap Addresses") */
import { describe, expect, it } from 'vitest'
import { portExits, setPortExits } from './io-bitmap.ts'

const A = 0x1000,
  B = 0x3000

describe('a port access exits', () => {
  it.each<[number, number, number, boolean]>([
    [0, 0, 1, true],
    [0, 1, 1, false],
    [1, 0, 1, false],
    [1, 0, 2, true],
    [7, 4, 4, true],
    [8, 4, 4, false],
    [8, 7, 2, true],
    [0x7fff, 0x7fff, 1, true],
    [0x7fff, 0x7ffe, 1, false],
    [0x8000, 0x7fff, 1, false],
    // Across the two bitmaps.
    [0x8000, 0x7fff, 2, true],
    [0x7fff, 0x7ffc, 4, true],
    [0x8000, 0x8000, 1, true],
    [0xffff, 0xffff, 1, true],
    [0xffff, 0xfffc, 4, true],
    [0xfffe, 0xffff, 1, false],
  ])('bit of port %i, access to %i of %i bytes: %s', (set, port, size, exits) => {
    const bytes = new Uint8Array(0x5000)
    setPortExits(bytes, A, B, set, 1, true)
    expect(bytes.reduce((sum, byte) => sum + byte, 0)).toBe(1 << (set & 7))
    expect(portExits(bytes, A, B, port, size)).toBe(exits)
  })
  it.each<[number, number, boolean]>([
    [0xffff, 1, false],
    [0xfffe, 2, false],
    [0xfffc, 4, false],
    [0xffff, 2, true],
    [0xfffd, 4, true],
    [0xfffe, 4, true],
  ])('whatever the bitmaps say where it goes past the last port: %i, %i bytes: %s', (port, size, exits) => {
    expect(portExits(new Uint8Array(0x5000), A, B, port, size)).toBe(exits)
  })
})
