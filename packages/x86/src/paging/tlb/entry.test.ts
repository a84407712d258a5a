/** Look-ups by generated code and by TypeScript find the same. */
import { describe, expect, it } from 'vitest'
import { lookUp, pageOfLastByte, tlbEntry, tlbHost, tlbTag } from './entry.ts'
import { exportedModule } from '../../backend/function-module.ts'
import { IrBuilder } from '../../ir/builder.ts'
import { S, TLB, TLB_BANK, TLB_BANK_SIZE } from '../../state/layout.ts'
import { BareMetal } from '../../testing/bare-metal.ts'
import { fillData, fillExecute } from './tlb.ts'

/** Its difference from the linear page shares bits with it. */
const HOST = 0x12_0000

type Access = 'read' | 'write' | 'execute'

/** (cpu, linear) gives the HPA, or -1. */
function generated(access: Access, bytes: number) {
  const b = new IrBuilder()
  const linear = b.param(1, 'i64')
  const entry = tlbEntry(b, linear)
  b.if(b.eq(tlbTag(b, entry, access), pageOfLastByte(b, linear, bytes)), () => b.return(tlbHost(b, linear, entry)))
  b.return(b.i32(-1))
  return { root: b.root, callees: b.callees, signature: { params: ['i32', 'i64'], results: ['i32'] } as const }
}

describe.each<Access>(['read', 'write', 'execute'])('%s', (access) => {
  it.each<[string, (m: BareMetal, bank: number) => void, bigint, number, boolean]>([
    ['first byte', fill, 0x40_0000_1000n, 1, true],
    ['last byte', fill, 0x40_0000_1fffn, 1, true],
    ['eight that end on the page', fill, 0x40_0000_1ff8n, 8, true],
    ['eight that cross', fill, 0x40_0000_1ff9n, 8, false],
    ['the same entry, another upper half', fill, 0x41_0000_1000n, 1, false],
    ['the same entry, another page', fill, 0x40_0080_1000n, 1, false],
    ['an empty entry', () => {}, 0x40_0000_1000n, 1, false],
    ['a page that may be read', fillRead, 0x40_0000_1000n, 1, access === 'read'],
    ['a page that may be executed', fillCode, 0x40_0000_1000n, 1, access === 'execute'],
  ])('%s', (_name, prepare, linear, bytes, known) => {
    const machine = new BareMetal()
    const { core, processor } = machine
    machine.enter('long')
    const bank = core.get32(S.banks) + TLB_BANK.user * TLB_BANK_SIZE
    core.set32(S.tlb, bank)
    prepare(machine, bank)
    const module = new WebAssembly.Module(exportedModule([generated(access, bytes)], processor.handlers.moduleContext))
    const run = new WebAssembly.Instance(module, { e: { memory: core.memory.memory, table: processor.handlers.table } }).exports['0'] as (cpu: number, linear: bigint) => number
    const host = known ? HOST + Number(linear & 0xfffn) : -1
    expect(run(core.base, linear)).toBe(host)
    const [low, high] = [Number(BigInt.asIntN(32, linear)), Number(linear >> 32n)]
    // TypeScript asks for the first byte, on a page that it has found to hold all.
    if (bytes === 1) expect(lookUp(core.i32, bank, low, high, TLB[access])).toBe(host)
  })
})

function fill(machine: BareMetal, bank: number): void {
  machine.core.paging.writable = true
  fillData(machine.core, bank, 0x1000, 0x40, HOST)
  fillCode(machine, bank)
}
function fillRead({ core }: BareMetal, bank: number): void {
  core.paging.writable = false
  fillData(core, bank, 0x1000, 0x40, HOST)
}
function fillCode({ core }: BareMetal, bank: number): void {
  fillExecute(core, bank, 0x1000, 0x40, HOST)
}
