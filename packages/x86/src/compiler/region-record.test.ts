import { describe, expect, it } from 'vitest'
import { asm } from '../testing/asm.ts'
import { BareMetal } from '../testing/bare-metal.ts'
import { S } from '../state/layout.ts'
import { readRecord, writeRecord, type CodeAtHand } from './region-record.ts'
import { createRegionCompiler, type RegionCode, type RegionRequest } from './region-service.ts'

const machine = new BareMetal({})
machine.enter('long')
const CONTEXT = machine.processor.handlers.moduleContext
const ENTRY = 0xf00
/** A loop with loads and stores, calls of slow ways, a branch that leaves the page, and a return. */
const CODE = asm(64, 'l: add rax, [rdx]; mov [rsi], rax; fld qword ptr [rdi]; dec rcx; jnz l; jc .-4096; ret')

function requestOf(mode: number): RegionRequest {
  const bytes = new Uint8Array(4096)
  bytes.set(CODE, ENTRY)
  return { bytes, entry: ENTRY, mode, entries: [], targets: [], trapped: [7000, 7001] }
}
const request = requestOf(machine.core.get32(S.mode))
function compiled(): RegionCode {
  let made: RegionCode | undefined
  createRegionCompiler().compile([request], CONTEXT, ({ regions }) => (made = regions[0]))
  return made!
}
const made = compiled()
const record = writeRecord(request, made)
/** The same page elsewhere in memory, behind another. */
const atHand = (bytes: Uint8Array = request.bytes): CodeAtHand => {
  const memory = new Uint8Array(8192)
  memory.set(bytes, 4096)
  return { ...request, bytes: memory, page: 4096 }
}
const withByte = (at: number): Uint8Array => {
  const bytes = request.bytes.slice()
  bytes[at]! ^= 1
  return bytes
}

describe('a record', () => {
  it('gives the region that was written, for the same code in another frame', () => {
    expect(made.code.calls.length).toBeGreaterThan(0)
    expect(made.code.hints.length).toBeGreaterThan(0)
    expect(made.region.exits.some((exit) => exit < 0)).toBe(true)
    expect(readRecord(record, atHand())).toEqual(made)
  })

  it.each<[string, CodeAtHand, boolean]>([
    ['with another byte before it', atHand(withByte(ENTRY - 1)), true],
    ['with another first byte', atHand(withByte(ENTRY)), false],
    ['with another last byte', atHand(withByte(ENTRY + CODE.length - 1)), false],
    ['with another byte behind it', atHand(withByte(ENTRY + CODE.length)), true],
    ['at another place', { ...atHand(), entry: ENTRY + 1 }, false],
    ['in another mode', { ...atHand(), mode: request.mode ^ 1 }, false],
    ['without hooks', { ...atHand(), trapped: [] }, false],
    ['with another hook', { ...atHand(), trapped: [7000, 7002] }, false],
    ['with a hook more', { ...atHand(), trapped: [7000, 7001, 7002] }, false],
  ])('of code %s', (_what, code, isFound) => {
    expect(readRecord(record, code) !== undefined).toBe(isFound)
  })

  it('that was cut short anywhere is none', () => {
    for (let length = 0; length < record.length; length++) expect(() => readRecord(record.slice(0, length), atHand()), `${length} bytes`).toThrow(RangeError)
  })

  it.each<[string, readonly number[]]>([
    // Mode 0, entry 0, no hooks; then extents.
    ['bytes that are on no page', [0, 0, 0, 1, 0, 0x81, 0x20]],
    ['bytes that end before they begin', [0, 0, 0, 1, 2, 1]],
    ['a list longer than all of it', [0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0xf]],
    ['a number without an end', [0x80, 0x80, 0x80, 0x80, 0x80, 0x80]],
  ])('with %s is none', (_what, bytes) => {
    expect(() => readRecord(Uint8Array.from(bytes), { bytes: new Uint8Array(4096), page: 0, entry: 0, mode: 0, trapped: [] })).toThrow(RangeError)
  })
})
