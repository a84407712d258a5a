import { ModuleBuilder } from '@nonroot/wasm-encoder'
import { describe, expect, it } from 'vitest'
import { decode } from '../decode/decoder.ts'
import { createInstruction, type Instruction } from '../decode/instruction.ts'
import { floatImports } from '../float/imports.ts'
import { HandlerBuilder } from '../interpreter/handler-builder.ts'
import { link, lower } from '../backend/lower.ts'
import { rows, type Row } from '../rows/index.ts'
import { semantics } from './index.ts'

const PREFIX: Record<string, number[]> = { '66': [0x66], F3: [0xf3], F2: [0xf2] }
const ESCAPE: Record<number, number[]> = { 0: [], 1: [0x0f], 2: [0x0f, 0x38], 3: [0x0f, 0x3a] }

/** One encoding of a row with a register or a memory operand. */
function encode(row: Row, long: boolean, memory: boolean): number[] {
  const { form } = row
  const reg = form.reg >= 0 ? form.reg : 1
  // RSI, EDI or [SI] as the base, whatever the address size; FS: and others are not at stake here.
  const modrm = form.hasModrm ? [(memory ? 0 : 0xc0) | (reg << 3) | (form.rm >= 0 ? form.rm : memory ? 6 : 2)] : []
  if (memory) modrm.push(0, 0)
  const opcode = form.opcode
  if (form.vex) {
    const pp = { NP: 0, '66': 1, F3: 2, F2: 3 }[form.prefix as string] ?? 0
    return [0xc4, 0xe0 | (form.map - 3), (form.w === 1 ? 0x80 : 0) | 0x78 | (form.l === 1 ? 4 : 0) | pp, opcode, ...modrm]
  }
  return [...(PREFIX[form.prefix] ?? []), ...(long && form.w === 1 ? [0x48] : []), ...ESCAPE[form.map]!, opcode, ...modrm]
}

function instructionOf(row: Row, codeSize: 16 | 32 | 64, memory: boolean): Instruction | undefined {
  const code = Uint8Array.from([...encode(row, codeSize === 64, memory), 1, 0, 0, 0, 0, 0, 0, 0, 0, 0])
  const instruction = createInstruction(row)
  const result = decode(code, 0, code.length, { codeSize, protectedMode: true }, instruction)
  return result === 'ok' && instruction.row === row ? instruction : undefined
}

const imports = floatImports(new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true }))
const SLOW = ['slowRead', 'slowWrite', 'slowModify', 'checkSegment']

/** A module of the handlers of all these instructions. */
function moduleOf(instructions: readonly Instruction[], codeSize: 16 | 32 | 64): Uint8Array<ArrayBuffer> {
  const module = new ModuleBuilder()
  module.importMemory({ module: 'e', name: 'memory', initial: 1, maximum: 65536, shared: true })
  module.importTable('e', 'table', 1)
  const handlerType = module.type(['i32', 'i32'], [])
  const known = new Map<string, number>()
  for (const [name, { params, results }] of Object.entries(imports)) known.set(name, module.importFunction('e', name, module.type(params, results)))
  for (const name of SLOW) known.set(name, module.importFunction('e', name, module.type(['i32', 'i32'], ['i32'])))
  known.set('system', module.importFunction('e', 'system', module.type(['i32', 'i32', 'i32'], ['i32'])))
  known.set('quickFill', module.importFunction('e', 'quickFill', module.type(['i32', 'i64', 'i32', 'i32'], ['i32'])))
  known.set('dispatch', module.importFunction('e', 'dispatch', handlerType))
  const callee = (name: string) => {
    const index = known.get(name)
    if (index === undefined) throw new Error(`no import ${name}`)
    return index
  }
  for (const instruction of instructions) {
    const b = new HandlerBuilder(instruction, codeSize, false, { systemRoutine: () => 0, exitOf: () => 0 })
    semantics[instruction.row.semantics]!(b, ...b.operands)
    b.next()
    const lowered = lower(b.root, 2)
    module.function(handlerType, lowered.locals, link(lowered, callee))
  }
  return module.toBytes()
}

describe('semantics', () => {
  it.each([16, 32, 64] as const)('of every row build valid handlers in %i-bit code', { timeout: 60_000 }, (codeSize) => {
    const instructions = rows
      .filter((row) => semantics[row.semantics])
      .flatMap((row) => [instructionOf(row, codeSize, false), instructionOf(row, codeSize, true)])
      .filter((instruction) => instruction !== undefined)
    expect(instructions.length).toBeGreaterThan(900)
    if (WebAssembly.validate(moduleOf(instructions, codeSize))) return
    const broken = instructions.filter((instruction) => !WebAssembly.validate(moduleOf([instruction], codeSize)))
    expect(broken.map(({ row, isMemory }) => `${row.mnemonic} ${row.operandText}${isMemory ? ' (memory)' : ''}`)).toEqual([])
  })

  it('belong to rows, every one', () => {
    const named = new Set(rows.map((row) => row.semantics))
    expect(Object.keys(semantics).filter((key) => !named.has(key))).toEqual([])
  })
})
