/** A kernel's own store to a table that it may only read: validated as if it had been asked for. (Xen, "writable page tables") */

import { describe, expect, it } from 'vitest'
import { handlerOf, KERNEL_CODE, pvBench, stop } from '../testing/bench.ts'

const PF = 14
/** A page that is read only, and its entry at this offset. */
const [TABLE, ENTRY] = [0x6000, 0x10]
const OLD = 0x1111_2222_3333_4444n

/** Runs one store of the kernel; `status`: what the strategy says to the entry that it is asked for. */
function store(code: readonly number[], { status = 'ok', patch = {}, isTable = true } = {}) {
  const bench = pvBench()
  const asked: [machine: number, entry: bigint][] = []
  const page = bench.machineOf(TABLE)
  bench.host.view.setBigUint64(page + ENTRY, OLD, true)
  bench.host.view.setBigUint64(page + ENTRY + 8, OLD, true)
  bench.protect(TABLE)
  bench.tables.tableEntryAt = (_vcpu, address) => (isTable ? page + Number(address & 0xff8n) : undefined)
  bench.tables.writeEntry = (_vcpu, machine, low, high) => {
    asked.push([machine - page, (BigInt(high >>> 0) << 32n) | BigInt(low >>> 0)])
    if (status === 'ok') bench.host.view.setBigUint64(machine, asked.at(-1)![1], true)
    return status as 'ok'
  }
  const { state } = bench.run([...code, ...stop], { rbx: BigInt(TABLE + ENTRY), ...patch })
  const isDone = state.rip === BigInt(KERNEL_CODE + code.length + stop.length)
  return { bench, state, asked, isDone, isFault: state.rip === handlerOf(PF) + BigInt(stop.length) }
}

describe('a store to a table', () => {
  it.each<[name: string, code: number[], entry: bigint]>([
    ['MOV of 8 bytes', [0x48, 0x89, 0x0b], 0x0102_0304_0506_0708n],
    ['MOV of 4 bytes', [0x89, 0x0b], 0x1111_2222_0506_0708n],
    ['MOV of the upper 4 bytes', [0x89, 0x4b, 0x04], 0x0506_0708_3333_4444n],
    ['MOV of 1 byte', [0x88, 0x0b], 0x1111_2222_3333_4408n],
    ['LOCK CMPXCHG that succeeds', [0xf0, 0x48, 0x0f, 0xb1, 0x0b], 0x0102_0304_0506_0708n],
    ['XCHG', [0x48, 0x87, 0x0b], 0x0102_0304_0506_0708n],
    ['AND', [0x48, 0x83, 0x23, 0xf0], OLD & ~0xfn],
    ['LOCK BTS', [0xf0, 0x48, 0x0f, 0xba, 0x2b, 0x3f], OLD | (1n << 63n)],
  ])('%s asks for the whole entry', (_name, code, entry) => {
    const { asked, isDone } = store(code, { patch: { rcx: 0x0102_0304_0506_0708n, rax: OLD } })
    expect([asked, isDone]).toEqual([[[ENTRY, entry]], true])
  })
  it('XCHG gives what was there', () => {
    const code = [0x48, 0x87, 0x0b, 0x48, 0x89, 0xca]
    expect(store(code, { patch: { rcx: 5n } }).state.rdx).toBe(OLD)
  })
  it('that is refused is a page fault of the guest’s, and changes no register', () => {
    const { isFault, state, bench } = store([0x48, 0x87, 0x0b], { status: 'busy', patch: { rcx: 5n } })
    expect([isFault, bench.faultAddress()]).toEqual([true, BigInt(TABLE + ENTRY)])
    // RCX is the frame's first word; then RIP of the store behind R11 and the error code.
    expect([bench.word(state.rsp), bench.word(state.rsp + 24n)]).toEqual([5n, BigInt(KERNEL_CODE)])
    expect(bench.host.view.getBigUint64(bench.machineOf(TABLE) + ENTRY, true)).toBe(OLD)
  })
  it('across two entries is not carried out', () => {
    const { isFault, asked } = store([0x48, 0x89, 0x4b, 0x04])
    expect([isFault, asked]).toEqual([true, []])
  })
  it('to a page that is no table is a page fault', () => {
    const { isFault, asked } = store([0x48, 0x89, 0x0b], { isTable: false })
    expect([isFault, asked]).toEqual([true, []])
  })
  it('that compares in vain asks for what was there', () => {
    const { asked, isDone } = store([0xf0, 0x48, 0x0f, 0xb1, 0x0b], { patch: { rcx: 1n, rax: 2n } })
    expect([asked, isDone]).toEqual([[[ENTRY, OLD]], true])
  })
})
