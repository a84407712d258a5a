/** Links from block to block across pages: what they must not outlive, and what they must not take for the same. */
import { describe, expect, it } from 'vitest'
import { asm } from '../testing/asm.ts'
import { BareMetal, PLACE } from '../testing/bare-metal.ts'
import { RBX, RDI, RSI } from '../state/layout.ts'

const TABLES = 0x3_0000
const PAGE = { head: 0x4_0000, one: 0x4_1000, other: 0x4_2000 }
/** Linear addresses: 4 KiB pages from here on. */
const AT = 0x80_0000_0000n

/** Maps pages one after the other. */
function map(m: BareMetal, pages: readonly number[]): void {
  m.write64(PLACE.tables + 8, BigInt(TABLES) | 7n)
  m.write64(TABLES, BigInt(TABLES + 0x1000) | 7n)
  m.write64(TABLES + 0x1000, BigInt(TABLES + 0x2000) | 7n)
  for (const [n, page] of pages.entries()) m.write64(TABLES + 0x2000 + 8 * n, BigInt(page) | 7n)
}

describe.each([
  ['a jump', 0xff0, [0xe9, 0x0b, 0, 0, 0]],
  ['code that goes on', 0xffe, [0x90, 0x90]],
])('%s to the next page', (_name, offset, head) => {
  it.each([false, true])('goes where its own address leads, though its page is mapped twice (compiled: %s)', (compile) => {
    const m = new BareMetal({ compile })
    if (compile) m.processor.blocks.hotness = 2
    m.enter('long')
    map(m, [PAGE.head, PAGE.one, PAGE.head, PAGE.other])
    m.write(PAGE.head + offset, head)
    m.write(PAGE.one, asm(64, 'add rbx, 1; ret'))
    m.write(PAGE.other, asm(64, 'add rbx, 0x100; ret'))
    m.set(RBX, 0)
    m.set(RSI, AT + BigInt(offset))
    m.set(RDI, AT + 0x2000n + BigInt(offset))
    m.run(asm(64, 'mov ecx, 9; again: call rsi; call rdi; dec ecx; jnz again; hlt'))
    expect(m.register(RBX)).toBe(9n * 0x101n)
  })
})
