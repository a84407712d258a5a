/**
 * The operands of far transfers, gates and software interrupts, whose work is in system/far-transfers.ts; and BOUND. (SDM Vol. 2, the instructions'
 * own pages)
 */
import { type Semantics, type SemanticsBuilder, type Value } from './builder.ts'
import { VECTOR } from '../state/register-bits.ts'
import { readFarPointer } from './system.ts'

const bytes = (b: SemanticsBuilder): Value => b.i32(b.operandSize / 8)

/** Routines of this family never continue with the next instruction, except in non-root operation, for which the block ends after them. */
const transfer = (b: SemanticsBuilder, name: string, ...args: Value[]): void => {
  b.system(name, ...args)
  b.endBlock()
}

const throughPointer =
  (name: string): Semantics =>
  (b, target) => {
    if (target!.spec.kind === 'A')
      return transfer(b, name, b.immediate2(), b.truncate(b.immediate(), b.operandSize), bytes(b))
    const { offset, selector } = readFarPointer(b, target!)
    transfer(b, name, selector, offset, bytes(b))
  }

const bound: Semantics = (b, index, bounds) => {
  const size = b.operandSize / 8
  const address = bounds!.address()
  const lower = b.load(b.linear('operand', address, size, 'read'), size)
  const upper = b.load(b.linear('operand', b.cut(b.add(address, size), b.addressSize), size, 'read'), size)
  const value = b.signExtend(index!.read(), b.operandSize)
  const outside = b.or(
    b.ltS(value, b.signExtend(lower, b.operandSize)),
    b.gtS(value, b.signExtend(upper, b.operandSize)),
  )
  b.raiseIf(outside, VECTOR.BR)
}

export const far: Record<string, Semantics> = {
  callFar: throughPointer('callFar'),
  jmpFar: throughPointer('jmpFar'),
  retf: (b, release) => transfer(b, 'retf', release ? release.read() : b.i32(0), bytes(b)),
  iret: (b) => transfer(b, 'iret', bytes(b)),
  int: (b, vector) => transfer(b, 'int', vector!.read()),
  int3: (b) => transfer(b, 'int3'),
  int1: (b) => transfer(b, 'int1'),
  into: (b) => {
    b.if(b.flag('of'), () => b.system('into'))
    b.endBlock()
  },
  bound,
}
