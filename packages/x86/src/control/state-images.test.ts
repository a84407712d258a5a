/** State images outside 64-bit code obey segments; what the x87 words of an image may not hold is put right. In both tiers. */
import { describe, expect, it } from 'vitest'
import { asm } from '../testing/asm.ts'
import { SELECTOR } from '../testing/bare-metal.ts'
import { machineOf, TIERS } from '../testing/tiers.ts'
import { S } from '../state/layout.ts'

const OSXSAVE = 0x4_0000n

describe.each(TIERS)('segments of an area, %s', (tier) => {
  const m = machineOf(tier)
  const IMAGES: [string, number[], number, boolean][] = [
    ['FXSAVE', asm(32, 'fxsave es:[ebx]; hlt'), 512, true],
    ['FXRSTOR', asm(32, 'fxrstor es:[ebx]; hlt'), 512, false],
    ['XSAVE', asm(32, 'xsave es:[ebx]; hlt'), 576, true],
    ['XSAVEC', asm(32, 'xsavec es:[ebx]; hlt'), 576, true],
    ['XSAVEOPT', asm(32, 'xsaveopt es:[ebx]; hlt'), 576, true],
    ['XRSTOR', asm(32, 'xrstor es:[ebx]; hlt'), 576, false],
  ]
  const run = (code: number[], segment: { selector?: number; access?: number; limit?: number; at?: number }) => {
    m.enter('protected')
    m.core.set64(S.cr4, m.core.get64(S.cr4) | OSXSAVE)
    m.descriptor(SELECTOR.free, 0x20000, segment.limit ?? 0xfff, segment.access ?? 0x93)
    m.set(0, segment.selector ?? SELECTOR.free)
    m.set(3, segment.at ?? 0)
    m.set(2, 0)
    m.run([...asm(32, 'mov es, ax; mov eax, 3'), ...code])
    return m.vector < 0 ? 'done' : [m.vector, m.frame(true, 4).error]
  }
  it.each(IMAGES)('%s', (_name, code, bytes, writes) => {
    expect(run(code, {})).toBe('done')
    expect(run(code, { limit: bytes - 1 })).toBe('done')
    expect(run(code, { limit: bytes - 2 })).toEqual([13, 0])
    expect(run(code, { limit: 0x100 + bytes - 1, at: 0x100 })).toBe('done')
    expect(run(code, { limit: 0x100 + bytes - 2, at: 0x100 })).toEqual([13, 0])
    expect(run(code, { selector: 0 })).toEqual([13, 0])
    expect(run(code, { access: 0x91 })).toEqual(writes ? [13, 0] : 'done')
    // Data that grows down: 400H to FFFFH.
    expect(run(code, { access: 0x97, limit: 0x3ff, at: 0x400 })).toBe('done')
    expect(run(code, { access: 0x97, limit: 0x3ff, at: 0x3c0 })).toEqual([13, 0])
  })
  it('in the stack segment it is #SS', () => {
    m.enter('protected')
    m.descriptor(SELECTOR.free, 0, 0x20, 0x93, 0xc)
    m.set(0, SELECTOR.free)
    m.run(asm(32, 'mov ss, ax; mov esp, 0x7000; mov ebp, 0x20f00; fxsave [ebp]; hlt'))
    expect([m.vector, m.frame(true, 4).error]).toEqual([12, 0])
  })
})

describe.each(TIERS)('x87 words of an image, %s', (tier) => {
  /** Control and status as they stand in the image, and as they are behind it. Bit 6 of the control word is always 1. */
  it.each<[number, number, number, number]>([
    [0x037f, 0x0000, 0x037f, 0x0000],
    [0x0000, 0x0000, 0x0040, 0x0000],
    [0xffff, 0x0000, 0x1f7f, 0x0000],
    // ES and B without an exception.
    [0x037f, 0x8080, 0x037f, 0x0000],
    // Exceptions, masked and not.
    [0x037f, 0x003f, 0x037f, 0x003f],
    [0x037e, 0x3801, 0x037e, 0xb881],
    [0x0340, 0x4720, 0x0340, 0xc7a0],
    // A stack fault is not an exception of its own.
    [0x037e, 0x0040, 0x037e, 0x0040],
  ])('%i, %i', (control, status, controlAfter, statusAfter) => {
    const m = machineOf(tier)
    for (const code of [asm(64, 'fxrstor [0x20000]; hlt'), asm(64, 'mov eax, 3; xor edx, edx; xrstor [0x20000]; hlt')]) {
      m.enter('long')
      m.core.set64(S.cr4, m.core.get64(S.cr4) | OSXSAVE)
      m.write16(0x20000, control)
      m.write16(0x20002, status)
      m.write32(0x20018, 0x1f80)
      m.write32(0x20200, 3)
      m.run(code)
      expect([m.vector, m.core.get32(S.fpuControl), m.core.get32(S.fpuStatus)]).toEqual([-1, controlAfter, statusAfter])
    }
  })
})
