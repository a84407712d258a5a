/** Single steps and breakpoints around instructions that enter handlers, wait or hold events off. (SDM Vol. 3B, "Debug Exceptions"; Vol. 3A, "Priority Among Concurrent Events") */
import { describe, expect, it } from 'vitest'
import { asm } from '../testing/asm.ts'
import { BareMetal, handlerOf, PLACE, SELECTOR } from '../testing/bare-metal.ts'
import { updateBreakpoints } from '../control/update-mode.ts'
import { S } from '../state/layout.ts'

const BS = 0x4000
const WATCHED = 0x2_0000
const HANDLER = 0x4800
/** [offset of RIP from the code, or the vector whose handler it is in, DR6] of each #DB. */
type Seen = [number | string, number]

/** `code` under TF from its first instruction on. All handlers but #DB's return at once. */
function trace(code: number[], { tf = true, watch = false, most = 12 } = {}): Seen[] {
  const m = new BareMetal()
  m.enter('long')
  const seen: Seen[] = []
  m.write(HANDLER, asm(64, 'hlt; iretq'))
  m.interruptGate(1, SELECTOR.code64, HANDLER, 0x8e)
  for (const vector of [3, 0x30]) m.write(handlerOf(vector), asm(64, 'iretq'))
  if (watch) {
    m.core.set64(S.dr0, BigInt(WATCHED))
    m.core.set64(S.dr7, 0xf_0402n)
    updateBreakpoints(m.core)
  }
  m.write16(WATCHED, SELECTOR.data)
  m.set(1, SELECTOR.data)
  m.set(3, WATCHED)
  m.flags = tf ? 0x102 : 2
  m.write(PLACE.code + 0x80, [0xf4])
  m.run([...code, 0x90, 0x90])
  while (m.rip === HANDLER + 1 && seen.length < most) {
    const { rip } = m.frame(false)
    const vector = [3, 0x30].find((v) => rip >= handlerOf(v) && rip < handlerOf(v) + 8)
    seen.push([vector === undefined ? rip - PLACE.code : `vector ${vector}`, m.core.get32(S.dr6) & 0xe00f])
    m.core.set64(S.dr6, 0xffff_0ff0n)
    m.go()
  }
  return seen
}

describe('a single step', () => {
  it.each<[string, number[], Seen[]]>([
    [
      'NOP',
      asm(64, 'nop; nop'),
      [
        [1, BS],
        [2, BS],
      ],
    ],
    // The handler returns to TF, and one more instruction runs.
    [
      'INT3 is none',
      asm(64, 'nop; int3; nop'),
      [
        [1, BS],
        [3, BS],
      ],
    ],
    [
      'INT n is none',
      asm(64, 'nop; int 0x30; nop'),
      [
        [1, BS],
        [4, BS],
      ],
    ],
    [
      'INT1 is a #DB of its own',
      asm(64, '.byte 0xf1; nop'),
      [
        [1, 0],
        [2, BS],
      ],
    ],
    [
      'MOV SS loses its own',
      asm(64, 'mov ss, cx; nop; nop'),
      [
        [3, BS],
        [4, BS],
      ],
    ],
    ['MOV SS before INT3: none', asm(64, 'mov ss, cx; int3; nop'), [[4, BS]]],
    [
      'STI covers no trap',
      asm(64, 'cli; nop; sti; nop'),
      [
        [1, BS],
        [2, BS],
        [3, BS],
        [4, BS],
      ],
    ],
  ])('%s', (_name, code, expected) => {
    expect(trace(code, { most: expected.length })).toEqual(expected)
  })
  it('is pending behind HLT, and ends the halt', () => {
    const m = new BareMetal()
    m.enter('long')
    m.write(HANDLER, asm(64, 'hlt; iretq'))
    m.interruptGate(1, SELECTOR.code64, HANDLER, 0x8e)
    m.flags = 0x102
    expect(m.run(asm(64, 'hlt; nop; nop'))).toBe('halt')
    expect([m.rip - PLACE.code, m.core.pendingDebug]).toEqual([1, BS])
    m.go()
    expect([m.rip, m.frame(false).rip - PLACE.code, m.core.get32(S.dr6) & 0xe00f]).toEqual([HANDLER + 1, 1, BS])
  })
  /** An interrupt waits from the start: where the trap's frame leads, and where the interrupt is then asked for. */
  it.each<[string, number[], number, number]>([
    ['NOP with IF set', asm(64, 'nop; nop'), 0x302, 1],
    ['the instruction in the shadow of STI', asm(64, 'sti; nop; nop; nop'), 0x102, 2],
    ['OUT', asm(64, 'out 0x80, al; nop'), 0x302, 2],
    ['MOV CR8', asm(64, 'mov cr8, rax; nop'), 0x302, 4],
    ['POPF', asm(64, 'push rbx; popfq; nop'), 0x302, 2],
  ])('comes before an interrupt, which does not wait for TF to go: behind %s', (_name, code, flags, at) => {
    const m = new BareMetal()
    m.enter('long')
    m.write(HANDLER, asm(64, 'hlt; iretq'))
    m.interruptGate(1, SELECTOR.code64, HANDLER, 0x8f)
    m.set(3, 0x302)
    m.flags = flags
    m.write(PLACE.code, [...code, 0x90, 0x90])
    m.core.set64(S.rip, BigInt(PLACE.code))
    const asked: (string | number)[] = []
    for (let n = 0; n < 12; n++) {
      m.core.set32(S.attention, 1)
      const stop = m.processor.run(100)
      if (stop === 'attention') asked.push(m.rip === HANDLER ? m.frame(false).rip - PLACE.code : `at ${m.rip - PLACE.code}`)
    }
    // A trap gate leaves IF as it is: the interrupt is asked for in the handler's first instruction, with the trap delivered.
    expect(asked).toContain(at)
  })
})

describe('a data breakpoint that MOV SS met', () => {
  it.each<[string, boolean, number[], Seen[]]>([
    ['comes behind the next instruction', false, asm(64, 'mov ss, [rbx]; nop; nop'), [[3, 1]]],
    ['with its single step', true, asm(64, 'mov ss, [rbx]; nop; nop'), [[3, BS | 1]]],
    [
      'before the first instruction of the handler of INT3',
      false,
      asm(64, 'mov ss, [rbx]; int3; nop'),
      [['vector 3', 1]],
    ],
    ['and of INT n', true, asm(64, 'mov ss, [rbx]; int 0x30; nop'), [['vector 48', 1]]],
    ['together with INT1: one #DB', false, asm(64, 'mov ss, [rbx]; .byte 0xf1; nop'), [[3, 1]]],
    [
      'together with INT1 under TF',
      true,
      asm(64, 'mov ss, [rbx]; .byte 0xf1; nop'),
      [
        [3, 1],
        [4, BS],
      ],
    ],
  ])('%s', (_name, tf, code, expected) => {
    expect(trace(code, { tf, watch: true, most: tf ? expected.length : 3 }).slice(0, expected.length + 1)).toEqual(
      expected,
    )
  })
  it('a fault forgets what its instruction met', () => {
    const m = new BareMetal()
    m.enter('long')
    m.core.set64(S.dr0, BigInt(WATCHED))
    m.core.set64(S.dr7, 0xf_0402n)
    updateBreakpoints(m.core)
    // The source is read, the destination is not there.
    m.set(6, WATCHED)
    m.set(7, 0x60_0000)
    m.run(asm(64, 'movsd'))
    expect([m.vector, m.core.pendingDebug]).toEqual([14, 0])
  })
})
