/** What changes of privilege leave of data segments, and ENTER's frame on a 16-bit stack. */
import { describe, expect, it } from 'vitest'
import { asm } from '../testing/asm.ts'
import { PLACE, SELECTOR } from '../testing/bare-metal.ts'
import { machineOf, TIERS } from '../testing/tiers.ts'
import { SEG, segment, SEGMENT } from '../state/layout.ts'
import { FLAG, RIGHTS } from '../state/register-bits.ts'

const { es, ds, fs, gs } = SEGMENT
/** [selector, base, limit, usable] */
type Hidden = [number, bigint, number, boolean]

describe('segments that an outer level may not use: selector and validity go, base and limit stay', () => {
  it.each<['long' | 'protected', string, number[], number]>([
    ['long', 'IRETQ', asm(64, 'push 0x2b; push 0x7100; push 2; push 0x33; push 0x8100; iretq'), 8],
    ['long', 'RETFQ', asm(64, 'push 0x2b; push 0x7100; push 0x33; push 0x8100; rex.w retf'), 8],
    ['protected', 'IRETD', asm(32, 'push 0x2b; push 0x7100; push 2; push 0x23; push 0x8100; iretd'), 4],
    ['protected', 'RETF', asm(32, 'push 0x2b; push 0x7100; push 0x23; push 0x8100; retf'), 4],
  ])('%s mode, %s', (mode, _name, code) => {
    const m = machineOf('interpreted')
    m.enter(mode)
    const at = (n: number, field: number) => segment(n) + field
    for (const [n, base] of [[fs, 0x1_2345_6000n], [gs, 0x22_0000n]] as const) m.core.set64(at(n, SEG.base), mode === 'long' ? base : base & 0xffff_ffffn)
    m.core.set32(at(gs, SEG.selector), SELECTOR.userData)
    m.core.set32(at(gs, SEG.attributes), 0xc0f3)
    m.write(0x8100, [0x0f, 0x0b])
    m.run(code)
    const hidden = (n: number): Hidden => [
      m.core.segmentSelector(n),
      m.core.segmentBase(n),
      m.core.segmentLimit(n),
      !(m.core.segmentAttributes(n) & RIGHTS.unusable),
    ]
    const base = mode === 'long' ? 0x1_2345_6000n : 0x2345_6000n
    expect([m.vector, hidden(fs), hidden(gs), hidden(ds), hidden(es)]).toEqual([
      6,
      [0, base, 0xffff_ffff, false],
      [SELECTOR.userData, 0x22_0000n, 0xffff_ffff, true],
      [0, 0n, 0xffff_ffff, false],
      [0, 0n, 0xffff_ffff, false],
    ])
  })
  it('and it cannot be used outside 64-bit mode', () => {
    const m = machineOf('interpreted')
    m.enter('protected')
    m.write(0x8100, asm(32, 'mov eax, fs:[0x20000]; hlt'))
    m.run(asm(32, 'push 0x2b; push 0x7100; push 2; push 0x23; push 0x8100; iretd'))
    expect([m.vector, m.frame(true, 4).rip]).toEqual([13, 0x8100])
  })
  it('an interrupt out of virtual-8086 mode keeps them too', () => {
    const m = machineOf('interpreted')
    m.enter('protected')
    const selectors = [0x1300, 0x1200, 0x1100, 0x1000]
    const frame = [...selectors, 0, 0x7100, 0x2_0002, 0x800, 0x100]
    frame.toReversed().forEach((value, n) => m.write32(0x6e00 + 4 * n, value))
    m.write(0x8100, [0x0f, 0x0b])
    m.run(asm(32, 'mov esp, 0x6e00; iretd'))
    expect([m.vector, m.frame(false, 4).cs, m.core.segmentSelector(fs), m.core.segmentBase(fs), m.core.segmentBase(gs)]).toEqual([6, 0x800, 0, 0x1_2000n, 0x1_3000n])
  })
})

describe.each(TIERS)('ENTER with 32-bit operands on a 16-bit stack, %s', (tier) => {
  it.each<[string, number[], number, number[]]>([
    ['level 0', asm(32, 'enter 8, 0; hlt'), 0x1234_6ffc, [0xaaaa_bbbb]],
    ['level 1', asm(32, 'enter 8, 1; hlt'), 0x1234_6ffc, [0xaaaa_bbbb, 0x1234_6ffc]],
  ])('%s: the frame pointer is ESP with its upper half', (_name, code, frame, pushed) => {
    const m = machineOf(tier)
    m.enter('protected')
    m.descriptor(SELECTOR.free, 0, 0xffff, 0x93)
    m.set(0, SELECTOR.free)
    m.set(5, 0xaaaa_bbbb)
    m.run([...asm(32, 'mov ss, ax; mov esp, 0x12347000; nop'), ...code])
    expect([m.vector, m.register(5), m.register(4) & 0xffff_ffffn]).toEqual([-1, BigInt(frame), BigInt(0x1234_7000 - 4 * pushed.length - 8)])
    expect(pushed.map((_, n) => m.read32(PLACE.stack - 4 - 4 * n))).toEqual(pushed)
  })
})

describe.each(TIERS)('ARPL, %s', (tier) => {
  const m = machineOf(tier)
  it.each([[0x10, 3, 0x13, true], [0x11, 1, 0x11, false], [0x13, 0, 0x13, false], [0x12, 0xfff3, 0x13, true], [0xffff_fff0, 2, 0xffff_fff2, true]])('%i by %i', (destination, source, result, changes) => {
    m.enter('protected')
    m.set(1, destination)
    m.set(7, source)
    m.flags = changes ? 2 : 2 | FLAG.ZF
    m.run(asm(32, 'arpl cx, di; hlt'))
    expect([m.register(1), (m.flags & FLAG.ZF) !== 0]).toEqual([BigInt(result), changes])
  })
  // The operand's writing is conditional; that it can be written is not. (SDM Vol. 2A, "ARPL")
  it.each([[1, false], [3, true]])('a device of selector D2D1H is written only where it changes: by %i', (source, changes) => {
    m.enter('protected')
    m.deviceLog.length = 0
    m.set(7, source)
    m.run(asm(32, 'arpl [0x800000], di; hlt'))
    expect(m.deviceLog).toEqual([[0x80_0000, 2, undefined], ...(changes ? [[0x80_0000, 2, 0xd2d3]] : [])])
  })
  it.each([[1, 0x91, 13], [3, 0x91, 13], [1, 0x93, -1], [3, 0x93, -1]])('by %i through a segment of rights %i', (source, rights, vector) => {
    m.enter('protected')
    m.descriptor(SELECTOR.free, 0x20000, 0xff, rights)
    m.write16(0x20010, 1)
    m.set(7, source)
    m.run(asm(32, 'mov ax, 0x70; mov es, ax; arpl es:[0x10], di; hlt'))
    expect([m.vector, m.read16(0x20010)]).toEqual([vector, vector < 0 ? source : 1])
  })
})
