import { describe, expect, it } from 'vitest'
import { decode } from '../decode/decoder.ts'
import { disassemble } from '../decode/disassemble.ts'
import { createInstruction, type Instruction } from '../decode/instruction.ts'
import { rows } from '../rows/index.ts'
import { flagsAreDead } from './dead-flags.ts'

/** 64-bit code, one instruction after the other. */
function decoded(hex: string): Instruction[] {
  const bytes = Uint8Array.from([...hex.replaceAll(' ', '').match(/../g)!, ...Array.from({ length: 16 }, () => '90')], (byte) => parseInt(byte, 16))
  const found: Instruction[] = []
  for (let at = 0; at < bytes.length - 16; ) {
    const instruction = createInstruction(rows[0]!)
    expect(decode(bytes, at, 15, { codeSize: 64, protectedMode: true }, instruction)).toBe('ok')
    found.push(instruction)
    at += instruction.length
  }
  return found
}

describe('flags of an instruction are dead', () => {
  it.each([
    { code: '01 d8 29 d8', dead: true, why: 'the next one writes all of them' },
    { code: '01 d8 75 00', dead: false, why: 'a branch reads them' },
    { code: '01 d8 8b 03 29 d8', dead: false, why: 'a load between could fault and show them' },
    { code: '01 d8 c1 c0 07 29 d8', dead: true, why: 'a rotate between reads none' },
    { code: '01 d8 c1 c0 07 75 00', dead: false, why: 'a rotate leaves some, and a branch reads them' },
    { code: 'c1 c0 07 c1 c8 02 29 d8', dead: true, why: 'the second rotate writes what the first does' },
    { code: 'c1 c0 07 c1 c8 20 75 00', dead: false, why: 'a rotate by 0 (32, masked) writes none' },
    { code: 'c1 c0 07 d3 c8 75 00', dead: false, why: 'a rotate by CL may write none' },
    { code: '01 d8 c1 e0 04 75 00', dead: true, why: 'a shift by a constant writes all' },
    { code: '01 d8 48 c1 e0 20 75 00', dead: false, why: 'it is not asked whether the sixth bit of a count is alone' },
    { code: '01 d8 d3 e0 75 00', dead: false, why: 'a shift by CL may write none' },
    { code: '01 d8 c1 d0 04 29 d8', dead: false, why: 'RCL reads CF' },
    { code: 'ff c0 01 d8', dead: true, why: 'ADD writes CF, too' },
    { code: '01 d8 ff c0', dead: false, why: 'INC leaves CF' },
  ])('$dead: $why ($code)', ({ code, dead }) => {
    const [first, ...rest] = decoded(code)
    expect(flagsAreDead(first!, rest), disassemble(first!, 0n)).toBe(dead)
  })
})
