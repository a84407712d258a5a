import type { GuestPagingState } from '@nonroot/contracts'
import { createTestGuestMemory, createTestHostMemory } from '@nonroot/testkit'
import { beforeEach, describe, expect, it } from 'vitest'
import { guestTranslate, isGlobalPage } from './guest-translate.ts'

const ROOT = 0x1000
const [P, LARGE, GLOBAL] = [1n, 0x80n, 0x100n]
const PGE = 0x80
const PSE = 0x10

const memory = createTestGuestMemory({ hostMemory: createTestHostMemory(64), ram: 1 << 20 })
const state = (format: GuestPagingState['format'], cr4 = 0): GuestPagingState => ({ cr0: 0, cr3: BigInt(ROOT), cr4, efer: 0, format })
/** Tables for an address, from the root: indices, then the leaf. */
function map(indices: readonly number[], leaf: bigint): void {
  indices.forEach((index, level) => {
    const entry = level === indices.length - 1 ? leaf | P : BigInt(ROOT + (level + 1) * 4096) | P
    memory.writeU64(ROOT + level * 4096 + index * 8, entry)
  })
}

beforeEach(() => memory.fill(0, 16 << 12, 0))

describe('a guest address', () => {
  it.each([
    { what: 'of 4 KiB, four levels', format: 'fourLevel', indices: [1, 2, 3, 4], leaf: 0x7000n, address: 0x80_8060_4123n, physical: 0x7123 },
    { what: 'of 2 MiB', format: 'fourLevel', indices: [0, 0, 3], leaf: 0x40_0000n | LARGE, address: 0x61_2345n, physical: 0x41_2345 },
    { what: 'of 1 GiB', format: 'fourLevel', indices: [0, 1], leaf: 0x8000_0000n | LARGE, address: 0x4123_4567n, physical: 0x8123_4567 },
    { what: 'of 4 KiB, five levels', format: 'fiveLevel', indices: [1, 0, 0, 0, 5], leaf: 0x9000n, address: 0x1_0000_0000_5fffn, physical: 0x9fff },
    { what: 'of 4 KiB, PAE', format: 'pae', indices: [3, 511, 511], leaf: 0x6000n, address: 0xffff_f010n, physical: 0x6010 },
    { what: 'behind a root entry with bit 7 set, which is no page', format: 'fourLevel', indices: [0], leaf: 0x8000n | LARGE, address: 0x123n, physical: undefined },
    { what: 'whose table is not there', format: 'fourLevel', indices: [0], leaf: 0n, address: 0n, physical: undefined },
  ] as const)('$what', ({ format, indices, leaf, address, physical }) => {
    map(indices, leaf)
    expect(guestTranslate(memory, state(format), address)).toBe(physical)
    expect(guestTranslate(memory, state(format), address ^ (1n << 31n))).toBeUndefined()
  })

  it.each([
    { what: 'a page of 4 KiB', cr4: PSE, directory: ROOT + 4096 + 1, table: 0x3001, physical: 0x3abc },
    { what: 'a page of 4 MiB above 4 GiB', cr4: PSE, directory: 0x0000_2081, table: 0, physical: 0x1_0000_1abc },
    { what: 'a page of 4 MiB at bit 39', cr4: PSE, directory: 0x0010_0081, table: 0, physical: 0x80_0000_1abc },
    { what: 'no large page without CR4.PSE', cr4: 0, directory: ROOT + 4096 + 0x81, table: 0x3001, physical: 0x3abc },
  ])('32-bit: $what', ({ cr4, directory, table, physical }) => {
    memory.writeU32(ROOT + 4, directory)
    memory.writeU32(ROOT + 4096 + 4, table)
    expect(guestTranslate(memory, state('legacy32', cr4), 0x40_1abcn)).toBe(physical)
  })
})

it.each([
  { what: 'with G and CR4.PGE', leaf: GLOBAL, cr4: PGE, global: true },
  { what: 'without G', leaf: 0n, cr4: PGE, global: false },
  { what: 'without CR4.PGE', leaf: GLOBAL, cr4: 0, global: false },
])('a page is global: $what', ({ leaf, cr4, global }) => {
  map([0, 0, 0, 4], 0x7000n | leaf)
  expect(isGlobalPage(memory, state('fourLevel', cr4), 0x4000n)).toBe(global)
  expect(isGlobalPage(memory, state('fourLevel', cr4), 0x5000n)).toBe(false)
})
