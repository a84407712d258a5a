import { describe, expect, it } from 'vitest'
import { createInstruction, type Instruction } from '../decode/instruction.ts'
import type { Value, Width } from '../ir/nodes.ts'
import { rows, type Row } from '../rows/index.ts'
import { S } from '../state/layout.ts'
import { SemanticsBuilder, type Place, type RegisterField } from './builder.ts'
import { semantics } from './index.ts'

/** Builds semantics and records, in order, what they do: accesses, writes of registers and flags, exits. */
class Recorder extends SemanticsBuilder {
  readonly done: string[] = []
  readonly stackSize = 64
  readonly leavesPage = true
  constructor(instruction: Instruction) {
    super()
    this.begin(instruction, false)
  }
  #value(): Value {
    return this.slot(S.value)
  }
  readRegister(): Value {
    return this.#value()
  }
  writeRegister(field: RegisterField): void {
    this.done.push(`register ${field}`)
  }
  readVector(): Value {
    return this.slot(S.value, 'v128')
  }
  writeVector(field: RegisterField): void {
    this.done.push(`vector ${field}`)
  }
  readMmx(): Value {
    return this.#value()
  }
  writeMmx(field: RegisterField): void {
    this.done.push(`vector ${field}`)
  }
  registerAddress(): Value {
    return this.cpu
  }
  immediate(): Value {
    return this.#value()
  }
  immediate2(): Value {
    return this.#value()
  }
  escape(): Value {
    return this.slot(S.value, 'i32')
  }
  currentRip(): Value {
    return this.#value()
  }
  nextRip(): Value {
    return this.#value()
  }
  relativeTarget(): Value {
    return this.#value()
  }
  protected effectiveAddress(): Value {
    return this.#value()
  }
  protected segmentAddress(): Value {
    return this.cpu
  }
  protected slowHost(): Value {
    return this.cpu
  }
  protected slowWrite(): void {}
  leave(): void {
    this.done.push('leave')
  }
  jump(): void {
    this.done.push('leave')
  }
  branch(): void {
    this.done.push('leave')
  }
  endBlock(): void {
    this.done.push('leave')
  }
  system(): void {
    this.done.push('system')
  }
  override load(linear: Value, bytes: number, which: number | 'operand' = 'operand'): Value {
    this.done.push(which === 'operand' ? 'load' : 'load other')
    return super.load(linear, bytes, which)
  }
  override store(linear: Value, bytes: number, value: Value, which: number | 'operand' = 'operand'): void {
    this.done.push(which === 'operand' ? 'store' : 'store other')
    super.store(linear, bytes, value, which)
  }
  override modify(linear: Value, bytes: number, which: number | 'operand' = 'operand'): Place {
    this.done.push('load')
    const { value, write } = super.modify(linear, bytes, which)
    return {
      value,
      write: (result) => {
        this.done.push('write back')
        write(result)
      },
    }
  }
  override setSlot(offset: number, value: Value, width?: Width): void {
    if (FLAG_SLOTS.has(offset)) this.done.push('flag')
    super.setSlot(offset, value, width)
  }
}
const FLAG_SLOTS: ReadonlySet<number> = new Set([S.cf, S.af, S.of, S.zr, S.sp])

const MODRM_MEMORY: ReadonlySet<string> = new Set(['E', 'M', 'W', 'Q'])
const hasMemoryForm = (row: Row): boolean => row.operands.some(({ kind }) => MODRM_MEMORY.has(kind))
const hasRegisterForm = (row: Row): boolean => !row.operands.some(({ kind }) => kind === 'M' || kind === 'O')

function record(row: Row, isMemory: boolean): string[] {
  const instruction: Instruction = { ...createInstruction(row), isMemory, hasModrm: true, mod: isMemory ? 0 : 3, base: 0, immediate: 1, length: 4 }
  const recorder = new Recorder(instruction)
  semantics[row.semantics]!(recorder, ...recorder.operands)
  return recorder.done
}

const FIRST: Readonly<Record<string, RegisterField>> = { G: 'reg', E: 'rm', R: 'rm', Z: 'rm', V: 'reg', P: 'reg', W: 'rm', Q: 'rm' }
const writesFirst = (row: Row, isMemory: boolean): boolean => {
  const first = row.operands[0]!
  const done = record(row, isMemory)
  if (isMemory && MODRM_MEMORY.has(first.kind)) return done.includes('store') || done.includes('write back')
  const field = first.kind === 'gpr' ? first.register : FIRST[first.kind]
  return done.includes(`register ${field}`) || done.includes(`vector ${field}`)
}

const described = rows.filter((row) => semantics[row.semantics] && Object.values(row.effects).some(Boolean))
const forms = described.flatMap((row) => [
  ...(hasRegisterForm(row) ? [{ row, isMemory: false }] : []),
  ...(hasMemoryForm(row) ? [{ row, isMemory: true }] : []),
])

describe('the effects of rows, compared with their semantics', () => {
  it.each(forms)('$row.mnemonic $row.operandText (memory: $isMemory)', ({ row, isMemory }) => {
    const { readsOnly, addressOnly, isQuiet, writesFlagsLast } = row.effects
    const done = record(row, isMemory)
    if (readsOnly) expect(writesFirst(row, isMemory)).toBe(false)
    if (addressOnly) expect(done.filter((step) => step === 'load' || step === 'store')).toEqual([])
    const canFault = (step: string) => /^(load|store|leave|system)/.test(step)
    if (isQuiet && !isMemory) expect(done.filter(canFault)).toEqual([])
    if (writesFlagsLast) expect(done.slice(done.indexOf('flag')).filter(canFault)).toEqual([])
  })

  it('names no semantics that do not exist', () => {
    expect(described.length).toBeGreaterThan(150)
  })
})
