/** A hostile kernel looks for the translation cache: at its addresses it finds what its own tables have there, as under VMX. */

import { describe, expect, it } from 'vitest'
import { differences } from './testing/compare.ts'
import { createMachine, little, type Outcome } from './testing/machines.ts'

const vmx = createMachine('vmx')
/** Fresh: once found, the cache is elsewhere. */
function translated(program: readonly number[]): { outcome: Outcome; moves: number } {
  const machine = createMachine('translate')
  const outcome = machine.run(program)
  return { outcome, moves: machine.metrics.scope('translator').counter('moves', '').value }
}

/** Where the cache is first, where it moves to, and holes without a cache. With it: whether it is found there. */
const ADDRESSES = [
  [0xffff_8001_0000_0000n, 1],
  [0xffff_8001_0000_0001n, 1],
  [0xffff_8001_0000_0040n, 1],
  [0xffff_8001_000f_fff8n, 1],
  [0xffff_8000_ffff_fffcn, 0],
  [0xffff_8081_0000_0000n, 0],
  [0xffff_c000_0000_0000n, 0],
] as const
const mov = (register: 0 | 1, value: bigint): number[] => [0x48, 0xb8 | register, ...little(value, 8)]
const READ = [0x48, 0x8b, 0x08]
const WRITE = [0x48, 0xc7, 0x00, 0xf4, 0xf4, 0xf4, 0xf4]
const JUMP = [0xff, 0xe0]
const CALL = [0xff, 0xd0]
const RETURN = [0x50, 0xc3]
/** The root entries of the cache's places, at physical 10000H by the identity mapping, become the entry of the lower half. */
const MAP = [
  // mov rcx, [0x10000]; mov [0x10800], rcx; mov [0x10808], rcx
  ...[0x48, 0x8b, 0x0c, 0x25, 0x00, 0x00, 0x01, 0x00],
  ...[0x48, 0x89, 0x0c, 0x25, 0x00, 0x08, 0x01, 0x00],
  ...[0x48, 0x89, 0x0c, 0x25, 0x08, 0x08, 0x01, 0x00],
  // Their entry 4, as entry 0 of the same table: mov rcx, [0x11000]; mov [0x11020], rcx
  ...[0x48, 0x8b, 0x0c, 0x25, 0x00, 0x10, 0x01, 0x00],
  ...[0x48, 0x89, 0x0c, 0x25, 0x20, 0x10, 0x01, 0x00],
  // mov rcx, cr3; mov cr3, rcx
  ...[0x0f, 0x20, 0xd9, 0x0f, 0x22, 0xd9],
]
/** INC RSI, as translated code that goes on around the access. */
const BESIDE = [0x48, 0xff, 0xc6]

describe.each([
  ['a read', READ],
  ['a write', WRITE],
  ['a jump', JUMP],
  ['a call', CALL],
  ['a return', RETURN],
])('%s', (_what, access) => {
  it.each(ADDRESSES)('at %d, where nothing is mapped', (address, found) => {
    const program = [...BESIDE, ...mov(0, address), ...access, ...BESIDE]
    const { outcome, moves } = translated(program)
    expect(differences(vmx.run(program), outcome)).toEqual([])
    if (address % 8n === 0n) expect(moves).toBe(found)
  })
  it.each(ADDRESSES)('at %d, where the guest has memory of its own', (address) => {
    const program = [...MAP, ...BESIDE, ...mov(0, address), ...access, ...BESIDE, ...access, ...BESIDE]
    expect(differences(vmx.run(program), translated(program).outcome)).toEqual([])
  })
})

it('finds what it wrote there itself, and runs it', () => {
  // At the cache's first address: inc rsi; ret — called twice, with another write between.
  const write = (bytes: number[]): number[] => [0xc7, 0x00, ...bytes]
  const program = [
    ...MAP,
    ...mov(0, 0xffff_8001_0003_0000n),
    ...write([0x48, 0xff, 0xc6, 0xc3]),
    ...CALL,
    ...write([0x48, 0xff, 0xc7, 0xc3]),
    ...CALL,
  ]
  const { outcome } = translated(program)
  expect(differences(vmx.run(program), outcome)).toEqual([])
  expect([outcome.state.rsi, outcome.state.rdi]).toEqual([1n, 1n])
})
