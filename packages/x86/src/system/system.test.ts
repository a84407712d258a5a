/** System instructions in small pieces of code on a bare machine, the expected state beside each. Code is assembled by tools/assemble.ts. */
import { beforeEach, describe, expect, it } from 'vitest'
import { updateMode } from '../control/update-mode.ts'
import { asm } from '../testing/asm.ts'
import { BareMetal, PLACE, SELECTOR } from '../testing/bare-metal.ts'
import { NO_HOOKS } from '../testing/no-hooks.ts'
import { RAX, RBX, RCX, RDX, RSI, S, SEGMENT } from '../state/layout.ts'
import { FLAG } from '../state/register-bits.ts'
import { MODE } from '../state/mode.ts'
import { cpuid } from '../control/cpuid.ts'
import { FEATURES } from '../rows/features.ts'
import { setSegment } from '../state/segments.ts'

let m: BareMetal
beforeEach(() => {
  m = new BareMetal()
})
const { ZF, IF, AC } = FLAG
const GP = 13,
  UD = 6,
  NP = 11,
  SS = 12,
  PF = 14,
  NM = 7

/** The fault that the code raises: [vector, error code]. */
function faultOf(code: number[]): [number, number] {
  expect(m.run(code)).toBe('halt')
  expect(m.vector).toBeGreaterThanOrEqual(0)
  const withCode = [8, 10, 11, 12, 13, 14, 17].includes(m.vector)
  const size = m.core.get32(S.efer) & 0x400 ? 8 : m.core.get32(S.cr0) & 1 ? 4 : 2
  return [m.vector, size === 2 ? 0 : m.frame(withCode, size).error]
}

describe('control registers', () => {
  beforeEach(() => m.enter('long'))
  it('reads what was written', () => {
    m.run(asm(64, 'mov rax, cr0; mov rbx, cr3; mov rcx, cr4; mov rdx, 0x1234; mov cr2, rdx; mov rsi, cr2; hlt'))
    expect([m.register(RAX), m.register(RBX), m.register(RCX), m.register(RSI)]).toEqual([
      0x80050033n,
      BigInt(PLACE.tables),
      0x6a0n,
      0x1234n,
    ])
  })
  it.each([
    ['PG without PE', asm(64, 'mov rax, 0x80000010; mov cr0, rax; hlt')],
    ['NW without CD', asm(64, 'mov rax, 0xa0050033; mov cr0, rax; hlt')],
    ['upper half of CR0', asm(64, 'mov rax, 0x180050033; mov cr0, rax; hlt')],
    ['PG cleared in 64-bit mode', asm(64, 'mov rax, 0x50033; mov cr0, rax; hlt')],
    ['PAE cleared in long mode', asm(64, 'mov rax, 0x680; mov cr4, rax; hlt')],
    ['reserved CR4', asm(64, 'mov rax, 0x806a0; mov cr4, rax; hlt')],
    ['VMXE is not there', asm(64, 'mov rax, 0x26a0; mov cr4, rax; hlt')],
    ['CR3 above MAXPHYADDR', asm(64, 'mov rax, 0x10000000000; mov cr3, rax; hlt')],
    ['CR3 bit 63 without PCIDE', asm(64, 'mov rax, 0x8000000000010000; mov cr3, rax; hlt')],
    ['CR8 above 15', asm(64, 'mov eax, 16; mov cr8, rax; hlt')],
    ['upper half of DR7', asm(64, 'mov rax, 0x100000000; mov dr7, rax; hlt')],
    ['LME under paging', asm(64, 'mov ecx, 0xc0000080; mov eax, 0xc01; xor edx, edx; wrmsr; hlt')],
    ['reserved EFER', asm(64, 'mov ecx, 0xc0000080; mov eax, 0xd03; xor edx, edx; wrmsr; hlt')],
    ['non-canonical LSTAR', asm(64, 'mov ecx, 0xc0000082; xor eax, eax; mov edx, 0x8000; wrmsr; hlt')],
    ['unknown MSR', asm(64, 'mov ecx, 0x12345; rdmsr; hlt')],
    ['read-only MSR', asm(64, 'mov ecx, 0xfe; wrmsr; hlt')],
    ['PAT of type 2', asm(64, 'mov ecx, 0x277; mov eax, 2; xor edx, edx; wrmsr; hlt')],
    [
      'XCR0 without x87',
      asm(64, 'mov rax, 0x406a0; mov cr4, rax; mov eax, 2; xor edx, edx; xor ecx, ecx; xsetbv; hlt'),
    ],
    ['RDPMC', asm(64, 'xor ecx, ecx; rdpmc; hlt')],
  ])('#GP(0): %s', (_name, code) => expect(faultOf(code)).toEqual([GP, 0]))
  it.each([
    ['CR1', [0x0f, 0x20, 0xc8]],
    ['XGETBV without OSXSAVE', asm(64, 'xgetbv; hlt')],
    ['RDFSBASE without FSGSBASE', asm(64, 'rdfsbase rax; hlt')],
    ['DR4 with DE', asm(64, 'mov rax, 0x6a8; mov cr4, rax; mov rax, dr4; hlt')],
    ['VMCALL', asm(64, 'vmcall; hlt')],
    ['RSM', asm(64, 'rsm; hlt')],
    ['UD2', asm(64, 'ud2')],
    ['MOV to CS', [0x8e, 0xc8]],
  ])('#UD: %s', (_name, code) => expect(faultOf(code)).toEqual([UD, 0]))
  it('PCIDs: bit 63 is not stored, low bits are', () => {
    m.run(asm(64, 'mov rax, 0x206a0; mov cr4, rax; mov rax, 0x8000000000010005; mov cr3, rax; mov rbx, cr3; hlt'))
    expect(m.register(RBX)).toBe(0x10005n)
  })
  it('CLTS, LMSW and SMSW', () => {
    m.run(asm(64, 'mov eax, 8; lmsw ax; smsw rbx; clts; smsw rcx; xor eax, eax; lmsw ax; smsw rdx; hlt'))
    expect([m.register(RBX) & 15n, m.register(RCX) & 15n, m.register(RDX) & 15n]).toEqual([9n, 1n, 1n])
  })
  it('TS makes x87, MMX and SSE raise #NM; EM makes SSE undefined', () => {
    expect(faultOf(asm(64, 'mov eax, 8; lmsw ax; fld1; hlt'))).toEqual([NM, 0])
    m.enter('long')
    expect(faultOf(asm(64, 'mov eax, 8; lmsw ax; paddb xmm0, xmm1; hlt'))).toEqual([NM, 0])
    m.enter('long')
    expect(faultOf(asm(64, 'mov eax, 4; lmsw ax; paddb xmm0, xmm1; hlt'))).toEqual([UD, 0])
    m.enter('long')
    expect(faultOf(asm(64, 'mov eax, 4; lmsw ax; fld1; hlt'))).toEqual([NM, 0])
    m.enter('long')
    expect(faultOf(asm(64, 'mov rax, 0x4a0; mov cr4, rax; paddb xmm0, xmm1; hlt'))).toEqual([UD, 0])
  })
  it('from real-address to protected to long mode', () => {
    // The page tables are those of `enter('long')`; the code is 16-bit, then 32-bit, then 64-bit.
    m.enter('long')
    m.enter('real')
    m.write16(0x9000, 0xff)
    m.write32(0x9002, PLACE.gdt)
    m.descriptor(SELECTOR.code32, 0, 0xfffff, 0x9b, 0xc)
    m.descriptor(SELECTOR.data, 0, 0xfffff, 0x93, 0xc)
    m.descriptor(SELECTOR.code64, 0, 0xfffff, 0x9b, 0xa)
    m.write(
      0x8100,
      asm(
        32,
        'mov ax, 0x10; mov ds, ax; mov ss, ax; mov esp, 0x7000; mov eax, cr4; or eax, 0x20; mov cr4, eax; mov eax, 0x10000; mov cr3, eax; mov ecx, 0xc0000080; rdmsr; or eax, 0x100; wrmsr; mov eax, cr0; or eax, 0x80000000; mov cr0, eax; jmp 0x18:0x8200',
      ),
    )
    m.write(0x8200, asm(64, 'mov rbx, 0x123456789abcdef0; push rbx; pop rdx; mov ecx, 0xc0000080; rdmsr; hlt'))
    expect(m.run(asm(16, 'lgdtd ds:[0x9000]; mov eax, cr0; or al, 1; mov cr0, eax; jmp 0x08:0x8100'))).toBe('halt')
    expect(m.register(RDX) === 0n && m.register(RAX) === 0x500n).toBe(true)
    expect(m.register(RBX)).toBe(0x123456789abcdef0n)
    expect(m.core.get32(S.mode)).toBe(2 | MODE.protectedMode | MODE.longMode)
  })
})

describe('privilege', () => {
  beforeEach(() => m.enter('long', 3))
  const PRIVILEGED: [string, number[]][] = [
    ['hlt', asm(64, 'hlt')],
    ['cli', asm(64, 'cli')],
    ['sti', asm(64, 'sti')],
    ['mov cr0', asm(64, 'mov rax, cr0')],
    ['rdmsr', asm(64, 'rdmsr')],
    ['wbinvd', asm(64, 'wbinvd')],
    ['invlpg', asm(64, 'invlpg [rax]')],
    ['lgdt', asm(64, 'lgdt [rax]')],
    ['ltr', asm(64, 'ltr ax')],
    ['swapgs', asm(64, 'swapgs')],
    ['clts', asm(64, 'clts')],
    ['in', asm(64, 'mov dx, 0x6000; in al, dx')],
    ['out', asm(64, 'out 0x80, al')],
    ['mov dr7', asm(64, 'mov dr7, rax')],
    ['sysret', asm(64, 'sysretq')],
  ]
  it.each(PRIVILEGED)('#GP(0) at CPL 3: %s', (_name, code) => expect(faultOf(code)).toEqual([GP, 0]))
  it.each(PRIVILEGED)('and at CPL 1, which has supervisor pages: %s', (_name, code) => {
    m.enter('long')
    m.core.set32(S.cpl, 1)
    updateMode(m.core)
    const seen: number[] = []
    m.core.hooks = { ...NO_HOOKS, exception: (vector, errorCode) => (seen.push(vector, errorCode), true) }
    m.run(code)
    expect(seen).toEqual([GP, 0])
  })
  it('CLAC is #UD at CPL 3', () => expect(faultOf(asm(64, 'clac'))).toEqual([UD, 0]))
  it('UMIP', () => {
    m.core.set64(S.cr4, 0xea0n)
    expect(faultOf(asm(64, 'sgdt [0x20000]'))).toEqual([GP, 0])
    m.enter('long', 3)
    m.run(asm(64, 'sgdt [0x20000]; sidt [0x20010]; str eax; sldt ebx; smsw ecx; ud2'))
    expect([m.read16(0x20000), m.read64(0x20002), m.read16(0x20010)]).toEqual([0xff, BigInt(PLACE.gdt), 0xfff])
    expect([m.register(RAX), m.register(RBX), m.register(RCX)]).toEqual([BigInt(SELECTOR.tss), 0n, 0x80050033n])
  })
  it('TSD', () => {
    m.core.set64(S.cr4, 0x6a4n)
    expect(faultOf(asm(64, 'rdtsc'))).toEqual([GP, 0])
  })
  it('IOPL 3 opens CLI, STI and ports', () => {
    m.flags = 0x3002
    m.portInput.set(0x60, 0x55)
    m.run(asm(64, 'in al, 0x60; sti; nop; pushfq; pop rbx; cli; pushfq; pop rcx; ud2'))
    expect([m.register(RAX), m.register(RBX) & BigInt(IF), m.register(RCX) & BigInt(IF)]).toEqual([
      0x55n,
      BigInt(IF),
      0n,
    ])
  })
  it('the I/O permission bitmap', () => {
    m.write16(PLACE.tss + 0x66, 0x68)
    m.write(
      PLACE.tss + 0x68,
      Array.from({ length: 0x80 }, () => 0xff),
    )
    m.write(PLACE.tss + 0x68 + 0x70 / 8, [0x00, 0xfc])
    m.run(asm(64, 'in al, 0x70; in ax, 0x78; ud2'))
    expect(m.vector).toBe(UD)
    m.enter('long', 3)
    expect(faultOf(asm(64, 'in eax, 0x78; ud2'))).toEqual([GP, 0])
    m.enter('long', 3)
    expect(faultOf(asm(64, 'mov dx, 0x4000; in al, dx; ud2'))).toEqual([GP, 0])
  })
  it.each([
    [0, 0x3202, 0x3202],
    [3, 0x0202, 0x0202],
    [3, 0x3002, 0x3202],
  ])('POPF at CPL %i', (cpl, before, after) => {
    m.enter('long', cpl as 0 | 3)
    m.flags = before
    m.set(RAX, 0x3202)
    m.run(asm(64, 'push rax; popfq; pushfq; pop rbx; ud2'))
    expect(Number(m.register(RBX))).toBe(after)
  })
})

describe('SYSCALL and SYSRET', () => {
  const msrs = () => {
    m.core.set64(S.star, (BigInt(SELECTOR.code64 - 8 + 8) << 32n) | (0x23n << 48n))
    m.core.set64(S.lstar, 0x8800n)
    m.core.set64(S.fmask, BigInt(IF | AC))
  }
  it('goes in and comes back', () => {
    m.enter('long', 3)
    msrs()
    m.flags = 0x203
    m.write(0x8800, asm(64, 'mov rbx, rcx; mov rdx, r11; pushfq; pop rsi; mov ax, ss; mov di, cs; sysretq'))
    m.write(PLACE.code, asm(64, 'syscall; pushfq; pop r8; mov r9d, cs; ud2'))
    m.core.set64(S.rip, BigInt(PLACE.code))
    m.go()
    expect(m.vector).toBe(UD)
    expect([m.register(RBX), m.register(RDX), m.register(RSI), m.register(8), m.register(9)]).toEqual([
      BigInt(PLACE.code + 2),
      0x203n,
      3n,
      0x203n,
      0x33n,
    ])
    expect(m.register(RAX) & 0xffffn).toBe(0x20n)
    expect(m.frame(false).ss).toBe(0x2b)
  })
  it('SCE off is #UD; a non-canonical RCX #GP at CPL 0', () => {
    m.enter('long')
    m.core.set64(S.efer, 0xd00n)
    expect(faultOf(asm(64, 'syscall'))).toEqual([UD, 0])
    m.enter('long')
    msrs()
    expect(faultOf(asm(64, 'mov rcx, 0x800000000000; sysretq'))).toEqual([GP, 0])
  })
  it('FMASK with TF and AC; TF of the user traps after it returns', () => {
    m.enter('long', 3)
    msrs()
    m.core.set64(S.fmask, BigInt(FLAG.TF | IF))
    m.flags = 0x102
    m.write(0x8800, asm(64, 'sysretq'))
    m.run(asm(64, 'nop; ud2'))
    expect(m.vector).toBe(1)
    expect(m.frame(false).rip).toBe(PLACE.code + 1)
  })
  it('SYSENTER and SYSEXIT', () => {
    m.enter('long', 3)
    m.core.set64(S.sysenterCs, BigInt(SELECTOR.code64))
    m.core.set64(S.sysenterEsp, 0x6f00n)
    m.core.set64(S.sysenterEip, 0x8800n)
    m.flags = 0x202
    m.write(0x8800, asm(64, 'mov rbx, rsp; pushfq; pop rsi; mov rdx, 0x8900; mov rcx, 0x7100; rex.w sysexit'))
    m.write(0x8900, asm(64, 'mov rdi, rsp; ud2'))
    m.run(asm(64, 'sysenter'))
    expect([m.register(RBX), m.register(RSI), m.register(7)]).toEqual([0x6f00n, 2n, 0x7100n])
    expect(m.frame(false).cs).toBe(SELECTOR.code64 + 32 + 3)
  })
})

describe('segments', () => {
  it.each<[string, () => void, number[], [number, number]]>([
    ['beyond the limit', () => {}, asm(32, 'mov ax, 0x1f0; mov ds, ax; hlt'), [GP, 0x1f0]],
    ['null SS', () => {}, asm(32, 'xor eax, eax; mov ss, ax; hlt'), [GP, 0]],
    ['code in SS', () => {}, asm(32, 'mov ax, 0x08; mov ss, ax; hlt'), [GP, 8]],
    ['RPL of SS', () => {}, asm(32, 'mov ax, 0x13; mov ss, ax; hlt'), [GP, 0x10]],
    [
      'absent data',
      () => m.descriptor(SELECTOR.free, 0, 0xffff, 0x13),
      asm(32, 'mov ax, 0x70; mov ds, ax; hlt'),
      [NP, 0x70],
    ],
    [
      'absent stack',
      () => m.descriptor(SELECTOR.free, 0, 0xffff, 0x13),
      asm(32, 'mov ax, 0x70; mov ss, ax; hlt'),
      [SS, 0x70],
    ],
    [
      'execute-only code',
      () => m.descriptor(SELECTOR.free, 0, 0xffff, 0x99),
      asm(32, 'mov ax, 0x70; mov es, ax; hlt'),
      [GP, 0x70],
    ],
    ['a system descriptor', () => {}, asm(32, 'mov ax, 0x38; mov es, ax; hlt'), [GP, 0x38]],
    ['no LDT', () => {}, asm(32, 'mov ax, 0x0c; mov es, ax; hlt'), [GP, 0xc]],
    [
      'limit',
      () => m.descriptor(SELECTOR.free, 0x20000, 0xff, 0x93, 4),
      asm(32, 'mov ax, 0x70; mov es, ax; mov al, es:[0xff]; mov ax, es:[0xff]; hlt'),
      [GP, 0],
    ],
    [
      'read-only',
      () => m.descriptor(SELECTOR.free, 0x20000, 0xff, 0x91, 4),
      asm(32, 'mov ax, 0x70; mov es, ax; mov al, es:[0]; mov es:[0], al; hlt'),
      [GP, 0],
    ],
    ['null', () => {}, asm(32, 'xor eax, eax; mov es, ax; mov al, es:[0]; hlt'), [GP, 0]],
    [
      'expand-down, below',
      () => m.descriptor(SELECTOR.free, 0, 0x1ff, 0x97, 4),
      asm(32, 'mov ax, 0x70; mov es, ax; mov al, es:[0x200]; mov al, es:[0x1ff]; hlt'),
      [GP, 0],
    ],
    ['CS is not writable', () => {}, asm(32, 'mov al, cs:[0x8000]; mov cs:[0x8000], al; hlt'), [GP, 0]],
    [
      'stack limit',
      () => m.descriptor(SELECTOR.free, 0, 0x6fff, 0x93, 4),
      asm(32, 'mov ax, 0x70; mov ss, ax; mov esp, 0x6000; mov eax, ss:[0x6ffc]; mov eax, ss:[0x6ffd]; hlt'),
      [SS, 0],
    ],
    ['LLDT of a TSS', () => {}, asm(32, 'mov ax, 0x48; lldt ax; hlt'), [GP, 0x48]],
    ['LTR of a busy TSS', () => {}, asm(32, 'mov ax, 0x38; ltr ax; hlt'), [GP, 0x38]],
    [
      'BOUND',
      () => (m.write32(0x20000, 1), m.write32(0x20004, 5)),
      asm(32, 'mov eax, 5; bound eax, [0x20000]; inc eax; bound eax, [0x20000]; hlt'),
      [5, 0],
    ],
  ])('protected mode: %s', (_name, prepare, code, expected) => {
    m.enter('protected')
    prepare()
    expect(faultOf(code)).toEqual(expected)
  })
  it('loads, marks accessed, and reads back', () => {
    m.enter('protected')
    m.descriptor(SELECTOR.free, 0x20000, 0xfff, 0x92, 4)
    m.write32(0x20010, 0xcafe)
    m.run(asm(32, 'mov ax, 0x73; mov fs, ax; mov ebx, fs:[0x10]; mov ecx, fs; push fs; pop edx; hlt'))
    expect(m.vector).toBe(GP) // RPL 3 on DPL 0
    m.descriptor(SELECTOR.free, 0x20000, 0xfff, 0x92, 4)
    m.enter('protected')
    m.run(asm(32, 'mov ax, 0x70; mov fs, ax; mov ebx, fs:[0x10]; mov ecx, fs; push 0; push fs; pop edx; hlt'))
    expect([m.register(RBX), m.register(RCX), m.register(RDX)]).toEqual([0xcafen, 0x70n, 0x70n])
    expect((m.read32(PLACE.gdt + 0x74) >>> 8) & 0xff).toBe(0x93)
  })
  it('LDT, LDS, LAR, LSL, VERR, VERW, ARPL', () => {
    m.enter('protected')
    m.write64(PLACE.ldt + 8, 0x00cf_f200_0000_ffffn)
    m.write32(0x20000, 0x1234)
    m.write16(0x20004, 0xc)
    m.run(
      asm(
        32,
        'mov ax, 0x60; lldt ax; lds ebx, [0x20000]; mov ecx, ds; lar edx, ecx; lsl esi, ecx; verw cx; setz al; mov cx, 8; verw cx; setz ah; verr cx; mov cx, 0x10; mov di, 3; arpl cx, di; hlt',
      ),
    )
    expect([m.register(RBX), m.register(RCX) & 0xffffn, m.register(RDX), m.register(RSI)]).toEqual([
      0x1234n,
      0x13n,
      0xc0f300n,
      0xffffffffn,
    ])
    expect([m.register(RAX) & 0xffffn, m.flags & ZF]).toEqual([1n, ZF])
  })
  it('16-bit code and stack', () => {
    m.enter('protected')
    setSegment(m.core, SEGMENT.ss, SELECTOR.data16, 0, 0, 0xffff, 0x93)
    m.write(0x8100, asm(16, 'mov ax, 0x58; mov ss, ax; mov esp, 0x12340004; push 0x11; push 0x22; push 0x33; hlt'))
    m.run(asm(32, 'jmp 0x50:0x8100'))
    expect(m.core.get32(S.gpr + 32) >>> 0).toBe(0x1234fffe)
    expect([m.read16(2), m.read16(0), m.read16(0xfffe)]).toEqual([0x11, 0x22, 0x33])
  })
  it('64-bit mode: null SS at CPL 0, FS and GS bases, SWAPGS', () => {
    m.enter('long')
    m.core.set64(S.cr4, 0x1_06a0n)
    m.write64(0x20008, 0x77n)
    m.run(
      asm(
        64,
        'xor eax, eax; mov ss, ax; mov fs, ax; mov rax, 0x20000; wrfsbase rax; mov rbx, fs:[8]; mov rax, 0x55; wrgsbase rax; swapgs; rdgsbase rcx; swapgs; rdgsbase rdx; hlt',
      ),
    )
    expect([m.register(RBX), m.register(RCX), m.register(RDX)]).toEqual([0x77n, 0n, 0x55n])
    expect(faultOf(asm(64, 'mov rax, 0x800000000000; wrfsbase rax; hlt'))).toEqual([GP, 0])
  })
  it('real-address mode: base from selector, limit 64 KiB', () => {
    m.enter('real')
    m.write16(0x20010, 0xbeef)
    m.run(asm(16, 'mov ax, 0x2000; mov ds, ax; mov bx, ds:[0x10]; hlt'))
    expect(m.register(RBX) & 0xffffn).toBe(0xbeefn)
    expect(faultOf(asm(16, 'mov eax, 0xffff; mov ax, ds:[eax]; hlt'))[0]).toBe(GP)
  })
})

describe('ports', () => {
  it('IN and OUT of each size', () => {
    m.enter('long')
    m.portInput.set(0x60, 0x11223344)
    m.run(
      asm(
        64,
        'mov rax, -1; mov dx, 0x60; in al, dx; mov rbx, rax; in ax, dx; mov rcx, rax; in eax, dx; mov rsi, rax; out dx, al; out dx, ax; out dx, eax; out 0x80, al; hlt',
      ),
    )
    expect([m.register(RBX), m.register(RCX), m.register(RSI)]).toEqual([
      0xffff_ffff_ffff_ff44n,
      0xffff_ffff_ffff_3344n,
      0x1122_3344n,
    ])
    expect(m.written).toEqual([
      [0x60, 1, 0x44],
      [0x60, 2, 0x3344],
      [0x60, 4, 0x11223344],
      [0x80, 1, 0x44],
    ])
  })
  it('REP INS and OUTS', () => {
    m.enter('long')
    m.portInput.set(0x1f0, 0xa55a)
    m.run(
      asm(
        64,
        'cld; mov dx, 0x1f0; mov rdi, 0x20ff8; mov ecx, 600; rep insw; mov rsi, 0x20ffe; mov ecx, 3; rep outsb; hlt',
      ),
    )
    expect([m.read16(0x20ff8), m.read16(0x20ff8 + 1198), m.read16(0x20ff8 + 1200)]).toEqual([0xa55a, 0xa55a, 0])
    expect([m.register(7), m.register(RCX), m.register(RSI)]).toEqual([0x20ff8n + 1200n, 0n, 0x21001n])
    expect(m.written).toEqual([
      [0x1f0, 1, 0x5a],
      [0x1f0, 1, 0xa5],
      [0x1f0, 1, 0x5a],
    ])
  })
  it.each([7, 64, 1000])('REP OUTS costs its elements, in slices of %i', (slice) => {
    m.enter('long')
    const before = m.processor.retired
    let stop = m.run(asm(64, 'mov dx, 0x60; mov rsi, 0x20000; mov ecx, 300; rep outsb; nop; nop; nop; hlt'), slice)
    // A slice shorter than the block that comes next gets nowhere.
    while (stop === 'budget') stop = m.processor.step() ?? m.go(slice)
    expect([stop, m.written.length, m.processor.retired - before]).toEqual(['halt', 300, 8 + 300])
  })
})

describe('SMAP and SMEP', () => {
  const smap = () => {
    m.enter('long')
    m.core.set64(S.cr4, 0x30_06a0n)
  }
  // Page tables of `enter` are user pages: the kernel must run on a supervisor one.
  const supervisorCode = () => m.write64(PLACE.tables + 0x2000, 0x83n)
  it('a user page is out of reach until STAC', () => {
    smap()
    supervisorCode()
    m.write32(0x20_0000, 0x99)
    m.run(asm(64, 'mov rax, cr4; mov cr4, rax; stac; mov ebx, [0x200000]; clac; mov ecx, [0x200000]; hlt'))
    expect([m.vector, m.frame(true).error, m.register(RBX)]).toEqual([PF, 1, 0x99n])
  })
  it('fetching from a user page', () => {
    smap()
    supervisorCode()
    m.write(0x20_0000, [0x90])
    m.run(asm(64, 'mov rax, cr4; mov cr4, rax; mov rax, 0x200000; jmp rax'))
    expect([m.vector, m.frame(true).error, m.frame(true).rip, m.core.get32(S.cr2)]).toEqual([
      PF,
      0x11,
      0x20_0000,
      0x20_0000,
    ])
  })
})

describe('extended state', () => {
  beforeEach(() => {
    m.enter('long')
    m.core.set64(S.cr4, 0x4_06a0n)
  })
  it('FXSAVE and FXRSTOR', () => {
    m.run(
      asm(
        64,
        'fninit; fld1; fldpi; mov rax, 0x123456789abcdef; movq xmm3, rax; movq xmm15, rax; fxsave [0x20000]; fninit; pxor xmm3, xmm3; fxrstor [0x20000]; movq rbx, xmm3; fstp qword ptr [0x20300]; fstp qword ptr [0x20308]; hlt',
      ),
    )
    expect([
      m.read16(0x20000),
      m.read16(0x20002) >>> 11,
      m.memory.bytes[(16 << 20) + 0x20004],
      m.read32(0x20018),
    ]).toEqual([0x37f, 6, 0xc0, 0x1f80])
    expect([m.read64(0x20000 + 160 + 48), m.read64(0x20000 + 160 + 240), m.register(RBX)]).toEqual([
      0x123456789abcdefn,
      0x123456789abcdefn,
      0x123456789abcdefn,
    ])
    expect([m.read64(0x20300), m.read64(0x20308)]).toEqual([0x400921fb54442d18n, 0x3ff0000000000000n])
  })
  it('XSAVE and XRSTOR by component, standard and compact', () => {
    m.run(
      asm(
        64,
        'fninit; mov rax, 77; movq xmm2, rax; mov eax, 2; xor edx, edx; xsave [0x20000]; pxor xmm2, xmm2; fld1; mov eax, 3; xrstor [0x20000]; movq rbx, xmm2; fnstsw ax; mov esi, eax; mov eax, 3; xsavec [0x21000]; hlt',
      ),
    )
    expect([m.read64(0x20200), m.register(RBX), m.register(RSI) & 0x3800n]).toEqual([2n, 77n, 0n])
    expect([m.read64(0x21200), m.read64(0x21208)]).toEqual([2n, 0x8000_0000_0000_0003n])
  })
  it.each([
    ['FXSAVE misaligned', asm(64, 'fxsave [0x20008]; hlt')],
    ['XSAVE misaligned', asm(64, 'xsave [0x20010]; hlt')],
    ['MXCSR reserved', asm(64, 'mov dword ptr [0x20018], 0x10000; fxrstor [0x20000]; hlt')],
    ['XSTATE_BV beyond XCR0', asm(64, 'mov dword ptr [0x20200], 4; mov eax, 3; xor edx, edx; xrstor [0x20000]; hlt')],
    ['XRSTORS of the standard form', asm(64, 'mov eax, 3; xor edx, edx; xrstors [0x20000]; hlt')],
  ])('#GP: %s', (_name, code) => expect(faultOf(code)).toEqual([GP, 0]))
  it('an area across a page that faults changes nothing', () => {
    m.write64(PLACE.tables + 0x2000 + 8, 0n)
    expect(faultOf(asm(64, 'fxsave [0x1fff00]; hlt'))).toEqual([PF, 2])
    expect(m.read32(0x1fff18)).toBe(0)
    expect(m.core.get32(S.cr2)).toBe(0x20_0000)
  })
})

describe('CPUID, MSRs, TSC, random numbers', () => {
  beforeEach(() => m.enter('long'))
  it('every advertised feature has rows, and the base leaves hold', () => {
    const result = new Uint32Array(4)
    cpuid(m.core, 0, 0, result)
    expect(String.fromCharCode(...new Uint8Array(Uint32Array.of(result[1]!, result[3]!, result[2]!).buffer))).toBe(
      'GenuineIntel',
    )
    const order = ['eax', 'ebx', 'ecx', 'edx']
    const has = (name: keyof typeof FEATURES) => {
      const { leaf, subleaf, register, bit } = FEATURES[name]
      cpuid(m.core, leaf, subleaf, result)
      return ((result[order.indexOf(register)]! >>> bit) & 1) === 1
    }
    expect(
      (['sse4.2', 'popcnt', 'aes', 'sha', 'rdrand', 'xsavec', 'rdtscp', 'smap', 'invpcid'] as const).every(has),
    ).toBe(true)
    expect((['vmx', 'sgx', 'rtm', 'pku', 'waitpkg', 'cetSs', 'monitor', 'serialize'] as const).some(has)).toBe(false)
  })
  it('OSXSAVE follows CR4; leaves above the highest are the highest', () => {
    m.run(
      asm(
        64,
        'mov eax, 1; cpuid; mov r8, rcx; mov rax, 0x406a0; mov cr4, rax; mov eax, 1; cpuid; mov r9, rcx; mov eax, 0x15; cpuid; mov r10, rcx; hlt',
      ),
    )
    expect([(m.register(8) >> 27n) & 1n, (m.register(9) >> 27n) & 1n, m.register(10)]).toEqual([0n, 1n, 1_000_000_000n])
  })
  it('MSRs keep what they take', () => {
    m.run(
      asm(
        64,
        'mov ecx, 0xc0000103; mov eax, 7; xor edx, edx; wrmsr; rdtscp; mov r8, rcx; rdpid r9; mov ecx, 0x277; rdmsr; hlt',
      ),
    )
    expect([m.register(8), m.register(9), m.register(RAX)]).toEqual([7n, 7n, 0x70406n])
  })
  it('TSC: written, adjusted', () => {
    m.run(asm(64, 'mov ecx, 0x10; xor eax, eax; xor edx, edx; wrmsr; rdtsc; mov r8, rax; mov ecx, 0x3b; rdmsr; hlt'))
    expect(m.register(8)).toBe(1000n)
    expect(BigInt.asIntN(32, m.register(RAX))).toBe(-1000n)
  })
  it('RDRAND', () => {
    m.run(asm(64, 'rdrand rax; setc bl; rdseed cx; hlt'))
    expect([m.register(RAX), m.register(RBX) & 1n, m.register(RCX) & 0xffffn]).toEqual([
      0x0123_4567_89ab_cdefn,
      1n,
      0xcdefn,
    ])
  })
  /** Page tables whose entry of page 30H, in the table at 13000H, leads to 30000H; both pages hold different numbers. */
  function changeablePage(): void {
    m.write64(PLACE.tables + 0x2000, BigInt(PLACE.tables + 0x3000) | 7n)
    for (let n = 0; n < 512; n++) m.write64(PLACE.tables + 0x3000 + 8 * n, BigInt(n * 4096) | 7n)
    m.write32(0x30000, 1)
    m.write32(0x31000, 2)
  }
  it.each<[string, number, bigint, bigint, number]>([
    ['an address', 0, 0n, 0x30123n, 2],
    ['another address', 0, 0n, 0x3_1000n, 1],
    ['a context', 1, 0n, 0n, 2],
    ['all contexts, with global pages', 2, 0n, 0n, 2],
    ['all contexts', 3, 0n, 0n, 2],
  ])('INVPCID of %s', (_name, type, pcid, address, seen) => {
    changeablePage()
    m.write64(0x20000, pcid)
    m.write64(0x20008, address)
    m.set(RSI, type)
    expect(m.run(asm(64, 'mov eax, [0x30000]; mov qword ptr [0x13180], 0x31007; mov ebx, [0x30000]; invpcid rsi, [0x20000]; mov ecx, [0x30000]; hlt'))).toBe('halt')
    expect([m.register(RAX), m.register(RBX), m.register(RCX)]).toEqual([1n, 1n, BigInt(seen)])
  })
  it.each<[string, number, bigint, bigint, boolean]>([
    ['type 3', 3, 0n, 0n, true],
    ['type 4', 4, 0n, 0n, false],
    ['reserved bits behind the PCID', 2, 1n << 12n, 0n, false],
    ['the last reserved bit', 3, 1n << 63n, 0n, false],
    ['an address that is not canonical', 0, 0n, 0x8000_0000_0000n, false],
    ['the last canonical address of the lower half', 0, 0n, 0x7fff_ffff_ffffn, true],
    ['an address that is not used', 1, 0n, 0x8000_0000_0000n, true],
    ['a PCID of an address without CR4.PCIDE', 0, 1n, 0n, false],
    ['a PCID of a context without CR4.PCIDE', 1, 0xfffn, 0n, false],
    ['a PCID that is not used', 2, 1n, 0n, true],
  ])('INVPCID and %s', (_name, type, pcid, address, allowed) => {
    m.write64(0x20000, pcid)
    m.write64(0x20008, address)
    m.set(RSI, type)
    expect(m.run(asm(64, 'invpcid rsi, [0x20000]; hlt'))).toBe('halt')
    expect(m.vector).toBe(allowed ? -1 : GP)
  })
  it('INVLPG makes a changed entry visible', () => {
    changeablePage()
    m.run(
      asm(
        64,
        'mov eax, [0x30000]; mov qword ptr [0x13180], 0x31007; mov ebx, [0x30000]; invlpg [0x30000]; mov ecx, [0x30000]; hlt',
      ),
    )
    expect([m.register(RAX), m.register(RBX), m.register(RCX)]).toEqual([1n, 1n, 2n])
  })
})
