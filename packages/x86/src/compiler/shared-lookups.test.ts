import { describe, expect, it } from 'vitest'
import { decode } from '../decode/decoder.ts'
import { createInstruction } from '../decode/instruction.ts'
import { rows } from '../rows/index.ts'
import { RBP, RSP } from '../state/layout.ts'
import { reachOf } from './shared-lookups.ts'
import type { Placed } from './region.ts'

function placed(hex: string): Placed[] {
  const bytes = Uint8Array.from(hex.match(/../g)!, (byte) => parseInt(byte, 16))
  const list: Placed[] = []
  for (let ip = 0; ip < bytes.length; ip += list.at(-1)!.instruction.length) {
    const instruction = createInstruction(rows[0]!)
    decode(bytes, ip, bytes.length - ip, { codeSize: 64, protectedMode: true }, instruction)
    list.push({ instruction, ip })
  }
  return list
}

describe('what straight code reaches through a register', () => {
  it.each([
    ['push r15; push r14; sub rsp,0x10; mov rax,[rsp+8]', '415741564883ec10488b442408', RSP, { min: -24, max: 0, writes: true }],
    ['pop rbx; pop rbp; ret', '5b5dc3', RSP, { min: 0, max: 24, writes: false }],
    ['mov eax,[rbp-4]; add eax,[rbp-8]', '8b45fc0345f8', RBP, { min: -8, max: 0, writes: false }],
    ['mov [rbp-4],eax; cmp byte [rbp+0x10],0', '8945fc807d1000', RBP, { min: -4, max: 17, writes: true }],
    ['mov rax,[rbp]; mov rbp,rax; mov rcx,[rbp+8]: another value', '488b45004889c5488b4d08', RBP, undefined],
    ['mov rax,[rbp]; mov rcx,[rbp+0x800]: too far', '488b4500488b8d00080000', RBP, undefined],
    ['mov rax,[rbp]; mov rcx,[rbp+rax]: an index', '488b4500488b4c0500', RBP, undefined],
    ['mov rax,[rbp]; mov rcx,fs:[rbp+8]: a segment', '488b450064488b4d08', RBP, undefined],
    ['mov rax,[rbp]; lea rcx,[rbp+8]: no access', '488b4500488d4d08', RBP, undefined],
    ['lea rbp,[rbp+0x40]; mov rax,[rbp]; mov rcx,[rbp+8]', '488d6d40488b4500488b4d08', RBP, { min: 64, max: 80, writes: false }],
  ])('%s', (_text, hex, register, reach) => {
    expect(reachOf(placed(hex), 0, register)).toEqual(reach)
  })
})
