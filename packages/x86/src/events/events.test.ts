/** Exceptions, interrupts, far transfers, tasks and debugging on a bare machine. Code is assembled by tools/assemble.ts. */
import { beforeEach, describe, expect, it } from 'vitest'
import { asm } from '../testing/asm.ts'
import { BareMetal, handlerOf, PLACE, SELECTOR } from '../testing/bare-metal.ts'
import { RAX, RBX, RCX, RDX, RSI, S, SEGMENT } from '../state/layout.ts'
import { FLAG } from '../state/register-bits.ts'
import { setSegment } from '../state/segments.ts'
import { updateBreakpoints } from '../control/update-mode.ts'

let m: BareMetal
beforeEach(() => {
  m = new BareMetal()
})
const { IF, RF, NT, VM } = FLAG
const selector = (n: number) => m.core.segmentSelector(n)

describe('delivery in long mode', () => {
  it('a fault at CPL 0 keeps the level, aligns the stack, saves SS:RSP', () => {
    m.enter('long')
    m.flags = 0x202
    m.set(4, 0x7008)
    m.run(asm(64, 'ud2'))
    expect(m.vector).toBe(6)
    expect(m.frame(false)).toEqual({
      error: 0,
      rip: PLACE.code,
      cs: SELECTOR.code64,
      flags: 0x202 | RF,
      rsp: 0x7008,
      ss: SELECTOR.data,
    })
    expect(m.rsp).toBe(0x7000 - 40)
    expect([m.flags & IF, selector(SEGMENT.ss)]).toEqual([0, SELECTOR.data])
  })
  it('a fault at CPL 3 takes RSP0 and a null SS', () => {
    m.enter('long', 3)
    m.run(asm(64, 'mov rax, [0x400000]'))
    expect(m.vector).toBe(13 + 1)
    expect(m.frame(true)).toMatchObject({ error: 4, cs: SELECTOR.userCode64, rsp: PLACE.stack, ss: SELECTOR.userData })
    expect([m.rsp, selector(SEGMENT.ss), m.core.get32(S.cpl)]).toEqual([PLACE.kernelStack - 48, 0, 0])
  })
  it('IST', () => {
    m.enter('long')
    m.interruptGate(6, SELECTOR.code64, handlerOf(6), 0x8e, 3)
    m.run(asm(64, 'ud2'))
    expect(m.rsp).toBe(PLACE.kernelStack - 0x300 - 40)
  })
  it('trap gates leave IF', () => {
    m.enter('long')
    m.flags = 0x202
    m.interruptGate(6, SELECTOR.code64, handlerOf(6), 0x8f)
    m.run(asm(64, 'ud2'))
    expect(m.flags & IF).toBe(IF)
  })
  it.each<[string, () => void, number[], number, number]>([
    ['gate not present', () => m.interruptGate(6, SELECTOR.code64, 0, 0x0e), asm(64, 'ud2'), 11, 6 * 8 + 3],
    ['not a gate', () => m.interruptGate(6, SELECTOR.code64, 0, 0x85), asm(64, 'ud2'), 13, 6 * 8 + 3],
    ['null selector', () => m.interruptGate(6, 0, 0, 0x8e), asm(64, 'ud2'), 13, 1],
    ['data selector', () => m.interruptGate(6, SELECTOR.data, 0, 0x8e), asm(64, 'ud2'), 13, SELECTOR.data + 1],
    ['32-bit code', () => m.interruptGate(6, SELECTOR.code32, 0, 0x8e), asm(64, 'ud2'), 13, SELECTOR.code32 + 1],
    [
      'INT n through an absent gate',
      () => m.interruptGate(0x80, SELECTOR.code64, 0, 0x0e),
      asm(64, 'int 0x80'),
      11,
      0x80 * 8 + 2,
    ],
    [
      'INT n beyond the IDT',
      () => setSegment(m.core, SEGMENT.idtr, 0, PLACE.idt, 0, 0x7ff, 0),
      asm(64, 'int 0x80'),
      13,
      0x80 * 8 + 2,
    ],
  ])('%s', (_name, prepare, code, vector, error) => {
    m.enter('long')
    prepare()
    m.run(code)
    expect([m.vector, m.frame(true).error, m.frame(true).rip]).toEqual([vector, error, PLACE.code])
  })
  it('a gate that leads to a non-canonical address pushes nothing', () => {
    m.enter('long')
    m.interruptGate(6, SELECTOR.code64, handlerOf(6), 0x8e, 3)
    m.write64(PLACE.idt + 6 * 16 + 8, 0x8000n)
    m.run(asm(64, 'ud2'))
    expect([m.vector, m.frame(true).error]).toEqual([13, 1])
    expect(m.read64(PLACE.kernelStack - 0x300 - 40)).toBe(0n)
  })
  it('INT n from CPL 3 needs the gate to be open', () => {
    m.enter('long', 3)
    m.run(asm(64, 'int 0x80'))
    expect([m.vector, m.frame(true).error, m.frame(true).rip]).toEqual([13, 0x402, PLACE.code])
    m.enter('long', 3)
    m.interruptGate(0x80, SELECTOR.code64, handlerOf(0x80), 0xee)
    m.run(asm(64, 'int 0x80'))
    expect([m.vector, m.frame(false).rip, m.frame(false).cs, m.frame(false).flags & RF]).toEqual([
      0x80,
      PLACE.code + 2,
      SELECTOR.userCode64,
      0,
    ])
  })
  it('INT3 and INT1', () => {
    m.enter('long', 3)
    m.interruptGate(3, SELECTOR.code64, handlerOf(3), 0xee)
    m.run(asm(64, 'int3'))
    expect([m.vector, m.frame(false).rip]).toEqual([3, PLACE.code + 1])
    m.enter('long', 3)
    m.run(asm(64, '.byte 0xf1'))
    expect([m.vector, m.frame(false).rip]).toEqual([1, PLACE.code + 1])
  })
  it('#PF during delivery of #UD is served as itself', () => {
    m.enter('long')
    m.write64(PLACE.tss + 0x24, 0x50_0000n)
    m.interruptGate(6, SELECTOR.code64, handlerOf(6), 0x8e, 1)
    m.run(asm(64, 'ud2'))
    expect([m.vector, m.frame(true).error, m.core.get32(S.cr2)]).toEqual([14, 2, 0x4f_fff8])
  })
  it('#GP meets #NP: double fault with error code 0', () => {
    m.enter('long')
    m.interruptGate(13, SELECTOR.code64, 0, 0x0e)
    m.run(asm(64, 'mov eax, 16; mov cr8, rax'))
    expect([m.vector, m.frame(true).error]).toEqual([8, 0])
  })
  it('#PF meets #PF: double fault', () => {
    m.enter('long')
    m.interruptGate(14, SELECTOR.code64, 0x50_0000, 0x8e, 1)
    m.write64(PLACE.tss + 0x24, 0x50_0000n)
    m.run(asm(64, 'mov eax, [0x400000]'))
    expect([m.vector, m.core.get32(S.cr2)]).toEqual([8, 0x4f_fff8])
  })
  describe('a fault while an event is delivered', () => {
    const [DE, UD, NP, SS, GP, PF] = [0, 6, 11, 12, 13, 14]
    const TS = 10
    /** [vector, code that raises it, whether it is contributory, a page fault or neither]. (SDM Vol. 3A, "Interrupt and Exception Classes") */
    const FIRST: [string, number, 'benign' | 'contributory' | 'page fault', () => void][] = [
      ['#UD', UD, 'benign', () => void m.run(asm(64, 'ud2'))],
      ['INT n', 0x21, 'benign', () => void m.run(asm(64, 'int 0x21; hlt'))],
      // A software interrupt is benign, whatever exception has its vector.
      ...[TS, GP, PF, 8].map((vector): (typeof FIRST)[number] => [`INT ${vector}`, vector, 'benign', () => void m.run([0xcd, vector, 0xf4])]),
      ['an interrupt', 0x40, 'benign', () => (m.core.set64(S.rip, BigInt(PLACE.code)), m.processor.interrupt(0x40), void m.go())],
      ['an NMI', 2, 'benign', () => (m.core.set64(S.rip, BigInt(PLACE.code)), m.processor.interrupt(2, 'nmi'), void m.go())],
      ['#DE', DE, 'contributory', () => void m.run(asm(64, 'xor ecx, ecx; div ecx'))],
      ['#NP', NP, 'contributory', () => (m.descriptor(SELECTOR.free, 0, 0xfffff, 0x13, 0xc), void m.run(asm(64, 'mov eax, 0x70; mov ds, ax; hlt')))],
      ['#SS', SS, 'contributory', () => void m.run(asm(64, 'mov rbp, 0x800000000000; mov eax, [rbp]; hlt'))],
      ['#GP', GP, 'contributory', () => void m.run(asm(64, 'mov eax, 16; mov cr8, rax'))],
      ['#PF', PF, 'page fault', () => void m.run(asm(64, 'mov eax, [0x400000]'))],
    ]
    /** What the first one's gate leads to. */
    const SECOND: [string, number, (vector: number) => void][] = [
      ['#TS', TS, () => setSegment(m.core, SEGMENT.tr, SELECTOR.tss, PLACE.tss, 0, 0x20, 0x8b)],
      ['#NP', NP, (vector) => m.interruptGate(vector, SELECTOR.code64, handlerOf(vector), 0x0e, 1)],
      ['#SS', SS, () => m.write64(PLACE.tss + 0x24, 0x9000_0000_0000n)],
      ['#GP', GP, (vector) => m.interruptGate(vector, SELECTOR.code64, handlerOf(vector), 0x85, 1)],
      ['#PF', PF, () => m.write64(PLACE.tss + 0x24, 0x50_0000n)],
    ]
    const pairs = FIRST.flatMap((first) => SECOND.map((second): [string, string, typeof first, typeof second] => [second[0], first[0], first, second]))
    it.each(pairs)('%s within %s', (_second, _first, [, vector, kind, raise], [, second, spoil]) => {
      m.enter('long')
      m.write(PLACE.code, [0xf4])
      m.interruptGate(vector, SELECTOR.code64, handlerOf(vector), 0x8e, 1)
      spoil(vector)
      // Its own gate is spoilt too where both are the same: then it is a double fault, sooner or later.
      raise()
      const doubles = vector === second || (kind === 'contributory' ? second !== PF : kind === 'page fault')
      expect(m.vector).toBe(doubles ? 8 : second)
      if (doubles) expect(m.frame(true).error).toBe(0)
    })
  })
  it('a double fault that cannot be delivered shuts down', () => {
    m.enter('long')
    m.interruptGate(13, SELECTOR.code64, 0, 0x0e)
    m.interruptGate(8, SELECTOR.code64, 0, 0x0e)
    expect(m.run(asm(64, 'mov eax, 16; mov cr8, rax'))).toBe('shutdown')
  })
  it('external interrupts wait for IF and HLT resumes behind', () => {
    m.enter('long')
    m.run(asm(64, 'sti; hlt; mov ebx, 5; cli; hlt'))
    expect(m.rip).toBe(PLACE.code + 2)
    m.write(handlerOf(0x40), asm(64, 'mov edx, 9; iretq'))
    expect(m.processor.interrupt(0x40)).toBeUndefined()
    m.go()
    expect([m.register(RBX), m.register(RDX), m.rsp]).toEqual([5n, 9n, PLACE.stack])
  })
  it('NMIs block each other until IRET', () => {
    m.enter('long')
    m.write(handlerOf(2), asm(64, 'mov edx, 9; iretq'))
    m.run(asm(64, 'hlt; nop; hlt'))
    m.processor.interrupt(2, 'nmi')
    expect(m.core.get32(S.nmiBlocked)).toBe(1)
    m.go()
    expect([m.core.get32(S.nmiBlocked), m.register(RDX)]).toEqual([0, 9n])
  })
})

describe('IRET in 64-bit mode', () => {
  it('to CPL 3 and back by a fault', () => {
    m.enter('long')
    m.write(0x8100, asm(64, 'mov ebx, cs; mov ecx, ss; mov rdx, rsp; pushfq; pop rsi; ud2'))
    m.run(asm(64, 'push 0x2b; push 0x7100; push 0x3202; push 0x33; push 0x8100; iretq'))
    expect([m.vector, m.register(RBX), m.register(RCX), m.register(RDX), m.register(RSI)]).toEqual([
      6,
      0x33n,
      0x2bn,
      0x7100n,
      0x3202n,
    ])
    expect(selector(SEGMENT.ds)).toBe(0) // DPL 0 data is out of reach
  })
  it('to compatibility mode', () => {
    m.enter('long')
    m.write(0x8100, asm(32, 'mov eax, -1; inc eax; push cs; pop ebx; mov ecx, esp; ud2'))
    m.run(asm(64, 'push 0x2b; push 0x7100; push 2; push 0x23; push 0x8100; iretq'))
    expect([m.vector, m.register(RAX), m.register(RBX), m.register(RCX), m.frame(false).cs]).toEqual([
      6,
      0n,
      0x23n,
      0x7100n,
      0x23,
    ])
  })
  it.each<[string, number[], number]>([
    ['null CS', asm(64, 'push 0x2b; push 0x7100; push 2; push 0; push 0x8100; iretq'), 0],
    ['null SS to CPL 3', asm(64, 'push 0; push 0x7100; push 2; push 0x33; push 0x8100; iretq'), 0],
    ['RPL below CPL of code', asm(64, 'push 0x2b; push 0x7100; push 2; push 0x18 | 3; push 0x8100; iretq'), 0x18],
    ['SS of another level', asm(64, 'push 0x10; push 0x7100; push 2; push 0x33; push 0x8100; iretq'), 0x10],
    ['NT', asm(64, 'push 0x4002; popfq; push 0x10; push 0x7100; push 2; push 0x18; push 0x8100; iretq'), 0],
    [
      'non-canonical RIP',
      asm(64, 'push 0x10; push 0x7100; push 2; push 0x18; mov rax, 0x800000000000; push rax; iretq'),
      0,
    ],
  ])('#GP: %s', (_name, code, error) => {
    m.enter('long')
    m.run(code)
    expect([m.vector, m.frame(true).error]).toEqual([13, error])
  })
  it('keeps IOPL and IF from CPL 3', () => {
    m.enter('long', 3)
    m.flags = 0x202
    m.write(0x8100, asm(64, 'pushfq; pop rsi; ud2'))
    m.run(asm(64, 'push 0x2b; push 0x7100; push 0x3002; push 0x33; push 0x8100; iretq'))
    expect(m.register(RSI)).toBe(0x202n)
  })
})

describe('protected mode', () => {
  it('a fault at CPL 3 switches stacks', () => {
    m.enter('protected', 3)
    m.run(asm(32, 'mov eax, 0x70; mov ds, ax'))
    expect(m.vector).toBe(13)
    expect(m.frame(true, 4)).toEqual({
      error: 0x70,
      rip: PLACE.code + 5,
      cs: SELECTOR.userCode32,
      flags: 2 | RF,
      rsp: PLACE.stack,
      ss: SELECTOR.userData,
    })
    expect([m.rsp, selector(SEGMENT.ss)]).toEqual([PLACE.kernelStack - 24, SELECTOR.data])
  })
  it('16-bit gates push words', () => {
    m.enter('protected')
    m.interruptGate(6, SELECTOR.code32, handlerOf(6), 0x86)
    m.run(asm(32, 'ud2'))
    expect([m.vector, m.rsp]).toEqual([6, PLACE.stack - 6])
  })
  it.each<[string, () => void, number, number]>([
    ['SS0 null', () => m.write32(PLACE.tss + 8, 0), 10, 1],
    ['SS0 of another level', () => m.write32(PLACE.tss + 8, SELECTOR.userData), 10, SELECTOR.userData - 3 + 1],
    ['TSS too short', () => setSegment(m.core, SEGMENT.tr, SELECTOR.tss, PLACE.tss, 0, 6, 0x8b), 10, SELECTOR.tss + 1],
  ])('inner stack: %s', (_name, prepare, vector, error) => {
    m.enter('protected', 3)
    prepare()
    // The fault comes again on the way to #TS: a task gate serves it.
    taskGate(10)
    m.run(asm(32, 'ud2'))
    expect([m.core.segmentSelector(SEGMENT.tr), m.read32(m.rsp), vector]).toEqual([SELECTOR.tss2, error, 10])
  })
  it('INTO and BOUND', () => {
    m.enter('protected')
    m.run(asm(32, 'mov al, 0x7f; add al, 1; into; hlt'))
    expect([m.vector, m.frame(false, 4).rip]).toEqual([4, PLACE.code + 5])
  })

  describe('call gates', () => {
    beforeEach(() => m.enter('protected', 3))
    it('to an inner level with parameters, and back releasing them', () => {
      m.gate(SELECTOR.free, SELECTOR.code32, 0x8200, 0xec, 2)
      m.write(0x8200, asm(32, 'mov eax, [esp+8]; mov ebx, [esp+12]; mov cx, ss; mov edx, esp; retf 8'))
      m.run(asm(32, 'push 0x11; push 0x22; call 0x70:0; mov esi, esp; ud2'))
      expect([
        m.vector,
        m.register(RAX),
        m.register(RBX),
        m.register(RCX) & 0xffffn,
        m.register(RDX),
        m.register(RSI),
      ]).toEqual([6, 0x22n, 0x11n, BigInt(SELECTOR.data), BigInt(PLACE.kernelStack - 24), BigInt(PLACE.stack)])
      expect(m.frame(false, 4).cs).toBe(SELECTOR.userCode32)
    })
    it.each<[string, number, number, number]>([
      ['DPL', 0x8c, 13, SELECTOR.free],
      ['absent', 0x6c, 11, SELECTOR.free],
    ])('%s', (_name, access, vector, error) => {
      m.gate(SELECTOR.free, SELECTOR.code32, 0x8200, access)
      m.run(asm(32, 'call 0x70:0'))
      expect([m.vector, m.frame(true, 4).error]).toEqual([vector, error])
    })
    it('JMP may not change the level', () => {
      m.gate(SELECTOR.free, SELECTOR.code32, 0x8200, 0xec)
      m.run(asm(32, 'jmp 0x70:0'))
      expect([m.vector, m.frame(true, 4).error]).toEqual([13, SELECTOR.code32])
    })
  })

  it('far CALL and RET at one level; JMP through memory', () => {
    m.enter('protected')
    m.write(0x8200, asm(32, 'mov eax, cs; mov ebx, [esp]; mov ecx, [esp+4]; retf'))
    m.write32(0x20000, 0x8300)
    m.write16(0x20004, SELECTOR.code32)
    m.write(0x8300, asm(32, 'mov edx, esp; hlt'))
    m.run(asm(32, 'call 0x08:0x8200; jmp fword ptr [0x20000]'))
    expect([m.register(RBX), m.register(RCX), m.register(RDX)]).toEqual([
      BigInt(PLACE.code + 7),
      8n,
      BigInt(PLACE.stack),
    ])
  })
  it.each<[string, number[], number, number]>([
    ['far JMP to data', asm(32, 'jmp 0x10:0x8000'), 13, 0x10],
    ['far JMP to null', asm(32, 'jmp 0:0x8000'), 13, 0],
    ['far JMP beyond the limit of a 16-bit segment', asm(32, 'jmp 0x50:0x18000'), 13, 0],
    ['RETF to an inner level', asm(32, 'push 0x20; push 0x8000; retf'), 13, 0x20],
  ])('%s', (_name, code, vector, error) => {
    m.enter('protected')
    m.run(code)
    expect([m.vector, m.frame(true, 4).error]).toEqual([vector, error])
  })
})

/** A second task whose code halts at 8400H, reached through a task gate in the IDT. */
function secondTask(): void {
  m.descriptor(SELECTOR.tss2, PLACE.tss2, 0x67, 0x89)
  const tss = PLACE.tss2
  m.write32(tss + 0x20, 0x8400)
  m.write32(tss + 0x24, 2)
  for (let n = 0; n < 8; n++) m.write32(tss + 0x28 + 4 * n, n === 4 ? 0x5f00 : 0x100 + n)
  for (const [n, value] of [SELECTOR.data, SELECTOR.code32, SELECTOR.data, SELECTOR.data, 0, 0].entries())
    m.write32(tss + 0x48 + 4 * n, value)
  m.write32(tss + 0x60, 0)
  m.write32(tss + 0x64, 0)
  m.write(0x8400, asm(32, 'hlt; iretd; nop; hlt'))
}
function taskGate(vector: number): void {
  secondTask()
  const at = PLACE.idt + vector * 8
  m.write32(at, SELECTOR.tss2 << 16)
  m.write32(at + 4, 0x8500)
}

describe('task switches', () => {
  beforeEach(() => m.enter('protected'))
  const busy = (gdt: number) => (m.read32(PLACE.gdt + gdt + 4) >>> 8) & 15

  it('JMP to a TSS', () => {
    secondTask()
    m.run(asm(32, 'mov eax, 0x77; jmp 0x48:0'))
    expect([m.rip, m.register(RAX), m.register(RBX), m.rsp, selector(SEGMENT.tr)]).toEqual([
      0x8401,
      0x100n,
      0x103n,
      0x5f00,
      SELECTOR.tss2,
    ])
    expect([busy(SELECTOR.tss), busy(SELECTOR.tss2), m.core.get32(S.cr0) & 8, m.flags & NT]).toEqual([9, 11, 8, 0])
    expect([m.read32(PLACE.tss + 0x20), m.read32(PLACE.tss + 0x28), m.read32(PLACE.tss + 0x4c)]).toEqual([
      PLACE.code + 12,
      0x77,
      SELECTOR.code32,
    ])
  })
  it('CALL nests; IRET returns', () => {
    secondTask()
    m.run(asm(32, 'mov eax, 0x77; call 0x48:0; mov ebx, 0x66; hlt'))
    expect([m.rip, m.flags & NT, m.read16(PLACE.tss2)]).toEqual([0x8401, NT, SELECTOR.tss])
    expect([busy(SELECTOR.tss), busy(SELECTOR.tss2)]).toEqual([11, 11])
    m.go()
    expect([m.rip, m.register(RAX), m.register(RBX), selector(SEGMENT.tr)]).toEqual([
      PLACE.code + 18,
      0x77n,
      0x66n,
      SELECTOR.tss,
    ])
    expect([busy(SELECTOR.tss), busy(SELECTOR.tss2), m.flags & NT]).toEqual([11, 9, 0])
  })
  it('a task gate with an error code', () => {
    taskGate(13)
    m.run(asm(32, 'mov ax, 0x1f0; mov ds, ax'))
    expect([m.rip, m.rsp, m.read32(0x5efc), m.flags & NT]).toEqual([0x8401, 0x5efc, 0x1f0, NT])
    expect(m.read32(PLACE.tss + 0x20)).toBe(PLACE.code + 4)
  })
  it.each<[string, () => void, number, number]>([
    ['busy', () => m.descriptor(SELECTOR.tss2, PLACE.tss2, 0x67, 0x8b), 13, SELECTOR.tss2],
    ['absent', () => m.descriptor(SELECTOR.tss2, PLACE.tss2, 0x67, 0x09), 11, SELECTOR.tss2],
    ['too short', () => m.descriptor(SELECTOR.tss2, PLACE.tss2, 0x66, 0x89), 10, SELECTOR.tss2],
  ])('%s', (_name, prepare, vector, error) => {
    secondTask()
    prepare()
    m.run(asm(32, 'jmp 0x48:0'))
    expect([m.vector, m.frame(true, 4).error, selector(SEGMENT.tr)]).toEqual([vector, error, SELECTOR.tss])
  })
  it('the T flag traps before the first instruction', () => {
    secondTask()
    m.write32(PLACE.tss2 + 0x64, 1)
    m.run(asm(32, 'jmp 0x48:0'))
    expect([m.vector, m.frame(false, 4).rip, m.core.get32(S.dr6) & 0xe00f]).toEqual([1, 0x8400, 0x8000])
  })
  it('a bad segment in the new task faults in the new task', () => {
    secondTask()
    m.write32(PLACE.tss2 + 0x54, 0x1f0)
    m.run(asm(32, 'jmp 0x48:0'))
    expect([m.vector, m.frame(true, 4).error, m.frame(true, 4).rip, selector(SEGMENT.tr)]).toEqual([
      10,
      0x1f0,
      0x8400,
      SELECTOR.tss2,
    ])
  })
})

describe('virtual-8086 mode', () => {
  /** From protected mode by IRET; code at 1000:0. */
  const enter = (flags: number, code: number[]) => {
    m.enter('protected')
    m.write(0x1_0000, code)
    // EIP CS EFLAGS ESP SS ES DS FS GS
    ;[0, 0x1000, flags, 0x100, 0x5000, 0x2000, 0x2000, 0x3000, 0x4000].forEach((value, n) =>
      m.write32(0x6e00 + 4 * n, value),
    )
    m.run(asm(32, 'mov esp, 0x6e00; iretd'))
  }
  it('real-mode segments, CPL 3, faults into protected mode with all segments saved', () => {
    m.write16(0x20010, 0x1234)
    enter(VM | 2, asm(16, 'mov ax, ds:[0x10]; mov bx, cs; hlt'))
    expect([m.vector, m.register(RAX) & 0xffffn, m.register(RBX) & 0xffffn]).toEqual([13, 0x1234n, 0x1000n])
    expect(m.frame(true, 4)).toMatchObject({ error: 0, rip: 5, cs: 0x1000, flags: VM | RF | 2, rsp: 0x100, ss: 0x5000 })
    expect([6, 7, 8, 9].map((n) => m.read32(m.rsp + 4 * n))).toEqual([0x2000, 0x2000, 0x3000, 0x4000])
    expect([selector(SEGMENT.ds), m.core.segmentAttributes(SEGMENT.ds) & 0x10000, m.flags & VM]).toEqual([
      0, 0x10000, 0,
    ])
  })
  it.each<[string, number, number[], number]>([
    ['CLI', 0, asm(16, 'cli'), 13],
    ['PUSHF', 0, asm(16, 'pushf'), 13],
    ['INT n', 0, asm(16, 'int 0x21'), 13],
    ['IRET', 0, asm(16, 'iret'), 13],
    ['LLDT', 0x3000, asm(16, 'lldt ax'), 6],
    ['MOV CR', 0x3000, asm(16, 'mov eax, cr0'), 13],
    ['INT n with IOPL 3 goes through the IDT', 0x3000, asm(16, 'int 0x21'), 13],
  ])('%s', (_name, flags, code, vector) => {
    enter(VM | 2 | flags, code)
    expect(m.vector).toBe(vector)
  })
  it('with IOPL 3 flags are its own', () => {
    enter(VM | 0x3002, asm(16, 'sti; nop; pushf; pop bx; cli; pushf; pop cx; .byte 0xf4'))
    expect([m.register(RBX) & 0xffffn, m.register(RCX) & 0xffffn]).toEqual([0x3202n, 0x3002n])
  })
})

describe('real-address mode', () => {
  beforeEach(() => m.enter('real'))
  it('INT and IRET', () => {
    m.flags = 0x202
    m.write(handlerOf(0x21), asm(16, 'mov bx, sp; iret'))
    m.run(asm(16, 'int 0x21; pushf; pop cx; mov dx, sp; hlt'))
    expect([m.register(RBX), m.register(RCX) & 0xffffn, m.register(RDX) & 0xffffn]).toEqual([
      BigInt(PLACE.stack - 6),
      0x202n,
      BigInt(PLACE.stack),
    ])
  })
  it('far CALL, RET n', () => {
    m.write(0x2_0000, asm(16, 'mov bx, cs; retf 2'))
    m.run(asm(16, 'push 5; call 0x2000:0; mov dx, sp; hlt'))
    expect([m.register(RBX), m.register(RDX) & 0xffffn]).toEqual([0x2000n, BigInt(PLACE.stack)])
  })
  it('no error codes; beyond the vector table a double fault, then shutdown', () => {
    setSegment(m.core, SEGMENT.idtr, 0, 0, 0, 0x1f, 0)
    expect(m.run(asm(16, 'int 0x21'))).toBe('shutdown')
  })
})

describe('debugging', () => {
  /** Runs until the code halts by itself; collects RIP and DR6 of each #DB (its handler returns). */
  function trace(code: number[], prepare: () => void = () => {}, stop = handlerOf(1) + 1): [number, number][] {
    m.enter('long')
    const seen: [number, number][] = []
    m.write(handlerOf(1), asm(64, 'hlt; iretq'))
    prepare()
    m.run(code)
    while (m.rip === stop && seen.length < 20) {
      seen.push([m.frame(false).rip - PLACE.code, m.core.get32(S.dr6) & 0xe00f])
      m.core.set64(S.dr6, 0xffff0ff0n)
      m.go()
    }
    return seen
  }
  const arm = (n: number, address: number, kind: number, length: number) => {
    m.core.set64(S.dr0 + 8 * n, BigInt(address))
    m.core.set64(
      S.dr7,
      m.core.get64(S.dr7) | BigInt(0x400 | (2 << (2 * n)) | (kind << (16 + 4 * n)) | (length << (18 + 4 * n))),
    )
    updateBreakpoints(m.core)
  }
  it('TF traps after each instruction, POPF itself not', () => {
    const code = asm(
      64,
      'pushfq; or qword ptr [rsp], 0x100; popfq; nop; inc eax; pushfq; and qword ptr [rsp], ~0x100; popfq; nop; hlt',
    )
    const seen = trace(code)
    expect(seen.map(([at]) => at)).toEqual([11, 13, 14, 22, 23])
    expect(new Set(seen.map(([, dr6]) => dr6))).toEqual(new Set([0x4000]))
  })
  it.each<[string, number[]]>([
    ['MOVS', asm(64, 'pushfq; or qword ptr [rsp], 0x100; popfq; rep movsb; nop; hlt')],
    ['STOS', asm(64, 'pushfq; or qword ptr [rsp], 0x100; popfq; rep stosb; nop; hlt')],
    ['LODS', asm(64, 'pushfq; or qword ptr [rsp], 0x100; popfq; rep lodsb; nop; hlt')],
    ['SCAS', asm(64, 'pushfq; or qword ptr [rsp], 0x100; popfq; repne scasb; nop; hlt')],
    ['INS', asm(64, 'pushfq; or qword ptr [rsp], 0x100; popfq; rep insb; nop; hlt')],
    ['OUTS', asm(64, 'pushfq; or qword ptr [rsp], 0x100; popfq; rep outsb; nop; hlt')],
  ])('TF traps after each round of a repeated %s', (_name, code) => {
    const seen = trace(code, () => {
      m.set(RCX, 3)
      m.set(RDX, 0x80)
      m.set(RSI, PLACE.data)
      m.set(7, PLACE.data + 0x100)
      m.set(RAX, 0xff)
    })
    expect(seen.map(([at]) => at)).toEqual([10, 10, 12, 13])
    expect(m.register(RCX)).toBe(0n)
  })
  it('TF traps once where a repeated instruction has nothing to do', () => {
    const code = asm(64, 'pushfq; or qword ptr [rsp], 0x100; popfq; rep movsb; nop; hlt')
    expect(trace(code, () => m.set(RCX, 0)).map(([at]) => at)).toEqual([12, 13])
  })
  it('data breakpoints stop a repeated instruction behind the round that met them', () => {
    const code = asm(64, 'rep stosb; hlt')
    const seen = trace(code, () => {
      arm(0, PLACE.data + 2, 1, 0)
      m.set(RCX, 8)
      m.set(7, PLACE.data)
    })
    expect([seen, m.register(RCX)]).toEqual([[[0, 1]], 0n])
  })
  it('an instruction breakpoint comes before; RF, which the handler sets, lets it pass once', () => {
    const handler = asm(64, 'hlt; or qword ptr [rsp+16], 0x10000; iretq')
    expect(
      trace(
        asm(64, 'nop; inc eax; nop; hlt'),
        () => (
          arm(0, PLACE.code + 1, 0, 0),
          m.interruptGate(1, SELECTOR.code64, 0x4900, 0x8e),
          m.write(0x4900, handler)
        ),
        0x4901,
      ),
    ).toEqual([[1, 1]])
  })
  it('data breakpoints: writes, reads, overlap', () => {
    const code = asm(
      64,
      'mov byte ptr [0x20003], 1; mov eax, [0x20000]; mov word ptr [0x20004], 2; mov byte ptr [0x20008], 3; hlt',
    )
    expect(trace(code, () => arm(1, 0x20000, 1, 3)).map(([, dr6]) => dr6)).toEqual([2])
    expect(trace(code, () => arm(1, 0x20000, 3, 3)).map(([, dr6]) => dr6)).toEqual([2, 2])
    expect(trace(code, () => arm(3, 0x20000, 1, 2)).map(([, dr6]) => dr6)).toEqual([8, 8])
  })
  it('I/O breakpoints under CR4.DE', () => {
    const code = asm(64, 'out 0x80, al; in al, 0x81; hlt')
    expect(trace(code, () => (m.core.set64(S.cr4, 0x6a8n), arm(0, 0x80, 2, 0)))).toEqual([[2, 1]])
  })
  it('general detect', () => {
    m.enter('long')
    m.core.set64(S.dr7, 0x2400n)
    m.run(asm(64, 'mov rax, dr7'))
    expect([m.vector, m.frame(false).rip, m.core.get32(S.dr6) & 0x2000, m.core.get32(S.dr7) & 0x2000]).toEqual([
      1,
      PLACE.code,
      0x2000,
      0,
    ])
  })
  it('MOV SS holds the trap back by one instruction', () => {
    const code = asm(
      64,
      'mov ecx, ss; pushfq; or qword ptr [rsp], 0x100; popfq; mov ss, cx; nop; nop; pushfq; and qword ptr [rsp], ~0x100; popfq; hlt',
    )
    expect(trace(code).map(([at]) => at)).toEqual([15, 16, 17, 25, 26])
  })
})
