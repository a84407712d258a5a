/** State by name: what is read can be written into another processor, which then goes on as the first would. */
import { expect, it } from 'vitest'
import { asm } from '../testing/asm.ts'
import { BareMetal, PLACE } from '../testing/bare-metal.ts'
import { RBX, S } from '../state/layout.ts'
import { readFlags, writeFlags } from '../state/flags.ts'
import { readRegisters, writeRegisters } from './registers.ts'
import { SHADOW, setShadow } from '../state/shadow.ts'
import { readMsr } from './msrs.ts'

it.each(['real', 'protected', 'compatibility', 'long'] as const)('reads and writes all of it: %s', (mode) => {
  const first = new BareMetal()
  first.enter(mode)
  first.run(asm(64, 'hlt'))
  first.core.set64(S.dr0, 0x1234n)
  first.core.set64(S.lstar, 0xffff_8000_0000_1000n)
  setShadow(first.core, SHADOW.movSs)
  first.core.u8[first.core.base + S.xmm + 77] = 9
  first.core.set32(S.fpuStatus, 0x3000)
  first.set(RBX, 0xfedc_ba98_7654_3210n)
  const state = readRegisters(first.core)
  const second = new BareMetal()
  writeRegisters(second.core, state)
  const again = readRegisters(second.core)
  const comparable = ({ msrs, ...rest }: typeof state) => ({
    ...rest,
    msrs: [...msrs].filter(([index]) => index !== 0x10),
  })
  expect(comparable(again)).toEqual(comparable(state))
  expect([second.core.get32(S.mode), second.core.get32(S.cpl)]).toEqual([
    first.core.get32(S.mode),
    first.core.get32(S.cpl),
  ])
})

it('a processor goes on where another stopped', () => {
  const first = new BareMetal()
  first.enter('long', 3)
  first.flags = 0x246
  first.run(asm(64, 'mov ebx, 7; nop; nop; nop; nop; ud2'), 1)
  const second = new BareMetal()
  second.enter('long') // its memory: tables and handlers
  second.write(PLACE.code, asm(64, 'mov ebx, 7; nop; nop; nop; nop; ud2'))
  writeRegisters(second.core, readRegisters(first.core))
  second.go()
  expect([second.vector, second.frame(false).cs, second.frame(false).flags & 0x246]).toEqual([6, 0x33, 0x246])
})

it('a patch leaves the rest alone', () => {
  const machine = new BareMetal()
  machine.enter('long')
  writeRegisters(machine.core, { rax: 5n, msrs: new Map([[0xc000_0103, 3n]]) })
  expect([machine.register(0), readMsr(machine.core, 0xc000_0103), machine.core.get64(S.cr3)]).toEqual([
    5n,
    3n,
    BigInt(PLACE.tables),
  ])
})

it.each([0x2, 0x3, 0x6, 0x12, 0x42, 0x82, 0x802, 0xcd7, 0x8d7, 0x26_3fd7 & ~0x8000])('flags survive as %i', (flags) => {
  const { core } = new BareMetal()
  writeFlags(core, flags)
  expect(readFlags(core)).toBe(flags | 2)
})
