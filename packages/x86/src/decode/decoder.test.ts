import { describe, expect, it } from 'vitest'
import { rows } from '../rows/index.ts'
import { createInstruction, decode, disassemble, type CodeSize, type Instruction } from './index.ts'

const into = createInstruction(rows[0]!)
const bytesOf = (hex: string) => Uint8Array.from(hex.split(' '), (byte) => Number.parseInt(byte, 16))

function text(hex: string, codeSize: CodeSize, protectedMode = true): string {
  const bytes = bytesOf(hex)
  const result = decode(bytes, 0, bytes.length, { codeSize, protectedMode }, into)
  if (result !== 'ok') return result
  expect(into.length).toBe(bytes.length)
  return disassemble(into, 0x1000n)
}

function decoded(hex: string, codeSize: CodeSize = 64): Instruction {
  const copy = createInstruction(rows[0]!)
  const bytes = bytesOf(hex)
  expect(decode(bytes, 0, bytes.length, { codeSize, protectedMode: true }, copy)).toBe('ok')
  return copy
}

describe('64-bit mode', () => {
  it.each([
    ['48 13 44 88 10', 'adc rax,QWORD PTR [rax+rcx*4+0x10]'],
    ['66 05 34 12', 'add ax,0x1234'],
    ['48 83 c0 ff', 'add rax,0xffffffffffffffff'],
    ['66 48 05 78 56 34 92', 'add rax,0xffffffff92345678'], // REX.W wins over 66
    ['88 e0', 'mov al,ah'],
    ['40 88 e0', 'mov al,spl'],
    ['45 88 c8', 'mov r8b,r9b'],
    ['48 b8 88 77 66 55 44 33 22 11', 'mov rax,0x1122334455667788'],
    ['a1 88 77 66 55 44 33 22 11', 'mov eax,ds:0x1122334455667788'],
    ['67 a1 44 33 22 91', 'mov eax,ds:0x91223344'],
    ['65 48 8b 04 25 28 00 00 00', 'mov rax,QWORD PTR gs:0x28'],
    ['48 8d 05 f8 ff ff ff', 'lea rax,[rip+0xfffffffffffffff8]'],
    ['67 8b 44 24 04', 'mov eax,DWORD PTR [esp+0x4]'],
    ['48 63 d0', 'movsxd rdx,eax'],
    ['50', 'push rax'],
    ['66 50', 'push ax'],
    ['41 57', 'push r15'],
    ['6a ff', 'push 0xffffffffffffffff'],
    ['e8 fb ff ff ff', 'call 1000'],
    ['66 e8 fa ff ff ff', 'call 1000'], // near branches ignore 66, as on Intel's chips
    ['74 fe', 'je 1000'],
    ['67 e3 00', 'jecxz 1003'],
    ['90', 'nop'],
    ['41 90', 'xchg r8d,eax'],
    ['49 90', 'xchg r8,rax'],
    ['f3 90', 'pause'],
    ['f3 0f 1e fa', 'endbr64'],
    ['0f 1f 44 00 00', 'nop DWORD PTR [rax+rax*1+0x0]'],
    ['0f 18 e0', 'nop eax'],
    ['f0 48 0f c7 08', 'lock cmpxchg16b OWORD PTR [rax]'],
    ['f3 48 a5', 'rep movs QWORD PTR es:[rdi],QWORD PTR ds:[rsi]'],
    ['f2 ae', 'repnz scas al,BYTE PTR es:[rdi]'],
    ['64 ac', 'lods al,BYTE PTR fs:[rsi]'],
    ['48 cf', 'iretq'],
    ['48 98', 'cdqe'],
    ['c8 10 00 01', 'enter 0x10,0x1'],
    ['0f 22 d8', 'mov cr3,rax'],
    ['0f 22 18', 'mov cr3,rax'], // ModRM.mod is ignored
    ['44 0f 20 c0', 'mov rax,cr8'],
    ['66 8e d8', 'mov ds,ax'],
    ['0f 01 f8', 'swapgs'],
    ['0f 01 f9', 'rdtscp'],
    ['0f 01 c1', 'vmcall'],
    ['0f 01 ca', 'clac'],
    ['0f 01 38', 'invlpg BYTE PTR [rax]'],
    ['0f 78 c8', 'vmread rax,rcx'],
    ['66 0f 38 82 01', 'invpcid rax,[rcx]'],
    ['f2 66 0f 38 f1 c1', 'crc32 eax,cx'],
    ['0f 38 f0 01', 'movbe eax,DWORD PTR [rcx]'],
    ['66 48 0f 6e c0', 'movq xmm0,rax'],
    ['f3 44 0f 7e c1', 'movq xmm8,xmm1'],
    ['45 0f fc c9', 'paddb mm1,mm1'], // REX.R and REX.B do not reach MMX registers
    ['66 0f 3a 14 c0 01', 'pextrb eax,xmm0,0x1'],
    ['66 0f 3a 14 00 01', 'pextrb BYTE PTR [rax],xmm0,0x1'],
    ['d8 c1', 'fadd st,st(1)'],
    ['dc e1', 'fsubr st(1),st'],
    ['de f9', 'fdivp st(1),st'],
    ['9b', 'fwait'],
    ['48 0f ae 00', 'fxsave64 [rax]'],
    ['f3 48 0f ae c0', 'rdfsbase rax'],
    ['0f c7 f0', 'rdrand eax'],
    ['f3 0f c7 f8', 'rdpid rax'],
    ['c4 e2 f8 f2 c1', 'andn rax,rax,rcx'],
    ['c4 e3 fb f0 c1 08', 'rorx rax,rcx,0x8'],
    ['c4 c2 71 f7 d0', 'shlx edx,r8d,ecx'],
  ])('%s: %s', (hex, expected) => {
    expect(text(hex, 64)).toBe(expected)
  })

  it.each(['06', '27', '60', '62 c0', '82 c0 00', '9a', 'ce', 'd4 0a', 'd6', 'c5', 'ea'].map((hex) => [hex]))(
    '%s is not an instruction',
    (hex) => {
      expect(['ud', 'truncated']).toContain(text(hex, 64))
    },
  )
})

describe('#UD', () => {
  it.each([
    ['LOCK with a register destination', 'f0 01 c0'],
    ['LOCK where it is not allowed', 'f0 8b 00'],
    ['LOCK CMP', 'f0 39 00'],
    ['MOV to CS', '8e c8'],
    ['a segment register 6', '8c f0'],
    ['CR1', '0f 20 c8'],
    ['CR5', '0f 22 e8'],
    ['DR8', '44 0f 21 c0'],
    ['66 before VMCALL', '66 0f 01 c1'],
    ['F3 POPCNT without F3', '0f b8 c0'],
    ['VEX after 66', '66 c4 e2 f8 f2 c1'],
    ['VEX after REX', '48 c4 e2 78 f2 c1'],
    ['VEX.vvvv where it is not used', 'c4 e3 73 f0 c1 08'],
    ['VEX.L = 1 on general registers', 'c4 e2 fc f2 c1'],
    ['AVX without rows', 'c5 f8 28 c1'],
    ['LEA of a register', '8d c0'],
    ['CMPXCHG8B of a register', '0f c7 c8'],
    ['undefined in group 5', 'ff f8'],
  ])('%s', (_, hex) => {
    expect(text(hex, 64)).toBe('ud')
  })

  it('covers UD0, UD1 and UD2 as rows with an operand where the manual has one', () => {
    expect(text('0f ff 00', 64)).toBe('ud0 eax,DWORD PTR [rax]')
    expect(text('0f b9 c1', 64)).toBe('ud1 eax,ecx')
    expect(text('0f 0b', 64)).toBe('ud2')
  })
})

describe('other modes', () => {
  it.each([
    ['63 c8', 32, true, 'arpl ax,cx'],
    ['63 c8', 16, false, 'ud'], // ARPL in real-address mode
    ['0f 00 c0', 16, false, 'ud'],
    ['0f 00 c0', 16, true, 'sldt ax'],
    ['0f 01 c1', 16, false, 'vmcall'],
    ['0f 01 c2', 16, false, 'ud'],
    ['66 0f 38 82 07', 16, false, 'invpcid eax,[bx]'],
    ['40', 32, true, 'inc eax'],
    ['66 48', 32, true, 'dec ax'],
    ['d6', 32, true, 'salc'],
    ['82 c0 01', 32, true, 'add al,0x1'],
    ['62 00', 32, true, 'bound eax,QWORD PTR [eax]'],
    ['c5 10', 32, true, 'lds edx,FWORD PTR [eax]'],
    ['c4 e2 78 f2 c1', 32, true, 'andn eax,eax,ecx'],
    ['c4 e2 f8 f2 c1', 32, true, 'andn eax,eax,ecx'], // VEX.W is ignored outside 64-bit mode
    ['c4 e2 78 f2 c1', 16, false, 'ud'],
    ['9a 78 56 34 12 cd ab', 32, true, 'call 0xabcd:0x12345678'],
    ['ea 34 12 cd ab', 16, false, 'jmp 0xabcd:0x1234'],
    ['66 e8 fc ff', 32, true, 'call 1000'],
    ['e9 fd ff', 16, false, 'jmp 1000'],
    ['8b 46 fe', 16, false, 'mov ax,WORD PTR [bp-0x2]'],
    ['8b 1a', 16, false, 'mov bx,WORD PTR [bp+si]'],
    ['8b 0e 34 12', 16, false, 'mov cx,WORD PTR ds:0x1234'],
    ['67 66 8b 04 58', 16, false, 'mov eax,DWORD PTR [eax+ebx*2]'],
    ['2e ff 2e 00 10', 16, false, 'jmp DWORD PTR cs:0x1000'],
    ['66 cf', 16, false, 'iretd'],
    ['66 0f 01 16 00 10', 16, false, 'lgdt ds:0x1000'],
    ['0f 20 c0', 16, false, 'mov eax,cr0'],
    ['60', 16, false, 'pusha'],
    ['67 e3 fd', 16, false, 'jecxz 1000'],
    ['48 01 c0', 64, true, 'add rax,rax'],
    ['0f 05', 32, true, 'ud'],
    ['0f 34', 32, true, 'sysenter'],
  ] as const)('%s, %d bits, protected %s: %s', (hex, codeSize, protectedMode, expected) => {
    expect(text(hex, codeSize, protectedMode)).toBe(expected)
  })
})

describe('the record', () => {
  it.each([
    ['mov eax,[rsp]', '8b 04 24', { segment: 2, base: 4, index: -1, isMemory: true }],
    ['mov eax,[rbp]', '8b 45 00', { segment: 2, base: 5 }],
    ['mov eax,[r12]', '41 8b 04 24', { segment: 3, base: 12 }],
    ['mov eax,[r13]', '41 8b 45 00', { segment: 3, base: 13 }],
    ['an ES override in 64-bit mode', '26 8b 00', { segment: 3, segmentOverride: -1 }],
    ['an ES override after FS', '64 26 8b 00', { segment: 4, segmentOverride: 4 }],
    ['RIP-relative', '8b 05 fc ff ff ff', { base: 16, displacement: -4, displacementHigh: -1 }],
    ['index 12', '42 8b 04 20', { base: 0, index: 12, scale: 0 }],
    ['a REX that is not last', '48 66 01 c0', { rex: 0, rexPresent: false, operandSize: 16 }],
    ['both 66 and REX.W', '66 48 01 c0', { operandSize: 64, operandSizePrefix: true }],
    ['a mandatory 66', '66 0f 6e c0', { operandSize: 32 }],
    ['F2 then F3', 'f2 f3 a4', { rep: 0xf3 }],
    ['ENTER', 'c8 34 12 05', { immediate: 0x1234, immediate2: 5, operandSize: 64 }],
    ['a negative imm8', '83 c0 80', { immediate: -128, immediateHigh: -1 }],
    ['an unsigned imm8', 'cd 80', { immediate: 0x80, immediateHigh: 0 }],
    ['the register in the opcode', '41 5c', { rm: 12, hasModrm: false }],
    ['VEX.vvvv', 'c4 c2 30 f2 d8', { vvvv: 9, reg: 3, rm: 8, vex: true, operandSize: 32 }],
    ['the condition', '0f 85 00 00 00 00', { opcode: 0x85 }],
  ] as const)('of %s', (_, hex, expected) => {
    expect(decoded(hex)).toMatchObject(expected)
  })

  it('extends 32-bit near branches in legacy modes to their own size', () => {
    expect(decoded('66 e9 fe ff', 32)).toMatchObject({ immediate: -2, operandSize: 16 })
  })
})

describe('bytes that run out', () => {
  it('are truncated until the instruction is complete', () => {
    const bytes = bytesOf('66 f0 48 81 84 88 00 01 00 00 78 56 34 12')
    for (let available = 0; available < bytes.length; available++)
      expect(decode(bytes, 0, available, { codeSize: 64, protectedMode: true }, into)).toBe('truncated')
    expect(decode(bytes, 0, bytes.length, { codeSize: 64, protectedMode: true }, into)).toBe('ok')
  })

  it.each([
    ['15 bytes are an instruction', 14, 'ok'],
    ['16 bytes are too long', 15, 'tooLong'],
  ])('%s', (_, prefixes, expected) => {
    const bytes = new Uint8Array(20).fill(0x66)
    bytes[prefixes] = 0x90
    expect(decode(bytes, 0, 20, { codeSize: 64, protectedMode: true }, into)).toBe(expected)
  })

  it('do not matter before #UD is certain', () => {
    expect(decode(bytesOf('0f 04'), 0, 2, { codeSize: 64, protectedMode: true }, into)).toBe('ud')
    expect(into.length).toBe(2)
  })
})

describe('random bytes', () => {
  it('decode to something in every mode, never past what is available, and disassemble', () => {
    let state = 0x2545f491
    const bytes = new Uint8Array(1 << 16)
    const wrong: string[] = []
    for (let at = 0; at < bytes.length; at++) {
      state ^= state << 13
      state ^= state >>> 17
      state ^= state << 5
      bytes[at] = state
    }
    for (const [codeSize, protectedMode] of [
      [16, false],
      [16, true],
      [32, false],
      [32, true],
      [64, true],
    ] as const)
      // prettier-ignore
      for (let at = 0; at + 16 < bytes.length; at++) {
        const available = 1 + (bytes[at]! % 15)
        const result = decode(bytes, at, available, { codeSize, protectedMode }, into)
        const fits = into.length <= Math.min(15, available) && (result !== 'tooLong' || available === 15)
        if (!fits || (result === 'ok' && disassemble(into).includes('?'))) wrong.push(`${codeSize}: ${at}`)
      }
    expect(wrong).toEqual([])
  })
})
