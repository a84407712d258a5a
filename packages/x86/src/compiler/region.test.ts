import { describe, expect, it } from 'vitest'
import { findRegion, type Region } from './region.ts'

const DECODE_MODE = { codeSize: 64, protectedMode: true } as const

/** Code by its offset; everything around it is UD2. */
function regionOf(code: Readonly<Record<number, string>>, targets: readonly number[], entries: readonly number[] = []): Region {
  const bytes = new Uint8Array(4096)
  for (let at = 0; at < bytes.length; at += 2) bytes.set([0x0f, 0x0b], at)
  for (const [at, hex] of Object.entries(code)) bytes.set(Uint8Array.from(hex.match(/../g)!, (byte) => parseInt(byte, 16)), Number(at))
  const compilable = ({ row }: { row: { mnemonic: string } }) => row.mnemonic !== 'UD2'
  return findRegion({ bytes, page: 0, mode: 0, decodeMode: DECODE_MODE, compilable, isEntry: (ip) => entries.includes(ip), targets }, 0)!
}
const jump = 'ffe0' // jmp rax
const increment = 'ffc1' // inc ecx

describe('the switch of a region', () => {
  it.each<[string, Readonly<Record<number, string>>, number[], number[], { blocks: number[]; targets: number[] | undefined }]>([
    ['nothing is known of the targets', { 0: jump }, [], [], { blocks: [0], targets: undefined }],
    ['no computed jump', { 0: increment, 16: increment }, [16], [], { blocks: [0], targets: undefined }],
    ['a call and a return are none', { 0: 'ffd0', 2: 'c3', 16: increment }, [16], [], { blocks: [0], targets: undefined }],
    ['cases', { 0: jump, 16: increment, 32: increment }, [16, 32], [], { blocks: [0, 16, 32], targets: [16, 32] }],
    ['a case that is a region of its own', { 0: jump, 16: increment, 32: increment }, [16, 32], [32], { blocks: [0, 16], targets: [16] }],
    ['a case that is no code', { 0: jump, 16: increment }, [16, 48], [], { blocks: [0, 16], targets: [16] }],
    ['cases that jump on: the entry is one of them', { 0: jump, 16: increment + jump, 32: increment + jump }, [16, 32], [], { blocks: [0, 16, 32], targets: [16, 32, 0] }],
    // je 16; jmp rax; 16: the other way also leads there.
    ['what direct jumps reach is no case', { 0: '740e' + jump, 16: increment }, [16], [], { blocks: [0, 2, 16], targets: undefined }],
    // 0: je 34; jmp rax; 16: inc ecx; jmp 34; 34: jmp rax
    ['a loop with two ways in has no structure', { 0: '7420' + jump, 16: increment + 'eb0e', 34: jump }, [16], [], { blocks: [0, 2, 34], targets: undefined }],
  ])('%s', (_text, code, targets, entries, expected) => {
    const region = regionOf(code, targets, entries)
    const ending = region.switch?.ending
    expect({ blocks: [...region.byStart.keys()].toSorted((a, b) => a - b), targets: ending?.kind === 'switch' ? [...ending.targets] : undefined }).toEqual(expected)
  })

  it('has at most sixteen targets', () => {
    const targets = Array.from({ length: 20 }, (_, n) => 16 * (n + 1))
    const region = regionOf({ 0: jump, ...Object.fromEntries(targets.map((ip) => [ip, increment])) }, targets)
    expect(region.switch?.ending).toMatchObject({ kind: 'switch', targets: targets.slice(0, 16) })
  })
})

it('takes both ways of a branch to the next instruction for edges, so that what follows is emitted once', () => {
  const { byStart } = regionOf({ 0: '7400', 2: 'c3' }, [])
  expect(byStart.get(2)).toMatchObject({ isMerge: true, predecessors: [{ start: 0 }, { start: 0 }] })
})
