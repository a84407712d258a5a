/** Near control transfer. Far ones, interrupts and returns from them are in far.ts. (SDM Vol. 2, the instructions' own pages) */
import { gpr, RCX, S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { type Semantics, type SemanticsBuilder, type Value } from './builder.ts'
import { VECTOR } from '../state/register-bits.ts'

/** Counts rCX down by the address size; flags stay. */
function countDown(b: SemanticsBuilder): Value {
  const count = b.truncate(b.sub(b.slot(gpr(RCX), 'i64', b.addressSize), 1), b.addressSize)
  b.writeRegister(RCX, b.addressSize, count)
  return b.ne(count, 0)
}

/** A target beyond the CS limit, or in 64-bit mode not canonical, is #GP at the branch. Relative ones are left to the fetch. */
function checkTarget(b: SemanticsBuilder, target: Value): void {
  if (b.codeSize === 64) {
    return b.raiseIf(b.ne(b.shrS(b.shl(target, 16), 16), target), VECTOR.GP)
  }
  b.raiseIf(b.gtU(target, b.rawLoad('i64', b.add(b.cpu, segment(SEGMENT.cs)), SEG.limit, 32)), VECTOR.GP)
}

export const control: Record<string, Semantics> = {
  jcc: (b) => b.branch(b.condition(b.instruction.row.form.opcode & 15)),
  jmp: (b) => b.branch(),
  jcxz: (b) => b.branch(b.eqz(b.slot(gpr(RCX), 'i64', b.addressSize))),
  loop: (b) => b.branch(countDown(b)),
  loope: (b) => b.branch(b.and(countDown(b), b.flag('zf'))),
  loopne: (b) => b.branch(b.and(countDown(b), b.eqz(b.flag('zf')))),
  call: (b) => {
    if (b.codeSize !== 64) checkTarget(b, b.relativeTarget())
    b.push(b.truncate(b.nextRip(), b.operandSize), b.operandSize / 8)
    b.branch()
  },
  callIndirect: (b, target) => {
    const to = target!.read()
    checkTarget(b, to)
    b.push(b.truncate(b.nextRip(), b.operandSize), b.operandSize / 8)
    b.jump(to)
  },
  jmpIndirect: (b, target) => {
    const to = target!.read()
    checkTarget(b, to)
    b.jump(to)
  },
  ret: (b, release) => {
    const { value, pointerAfter } = b.top(b.operandSize / 8)
    checkTarget(b, value)
    b.setStackPointer(release ? b.cut(b.add(pointerAfter, release.read()), b.stackSize) : pointerAfter)
    b.jump(value)
  },
  nop: () => {},
  // The wait itself is over at once.
  pause: (b) => b.ifUnlikely(b.slot(S.pauseExits, 'i32'), () => b.system('nothing')),
  ud: (b) => b.raise(VECTOR.UD),
  // Transactional memory is not advertised.
  xbegin: (b) => b.raise(VECTOR.UD),
  xabort: () => {},
  xend: (b) => b.raise(VECTOR.UD),
  xtest: (b) => b.raise(VECTOR.UD),
}
