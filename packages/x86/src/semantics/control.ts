/** Near control transfer. Far ones, interrupts and returns from them are in far.ts. (SDM Vol. 2, the instructions' own pages) */
import { gpr, RCX, S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { notCanonical, type Semantics, type SemanticsBuilder, type Value } from './builder.ts'
import { VECTOR } from '../state/register-bits.ts'

/** i32: a target is beyond the limit of CS, or in 64-bit mode not canonical. */
function isOutside(b: SemanticsBuilder, target: Value): Value {
  if (b.codeSize === 64) return notCanonical(b, target)
  return b.gtU(target, b.rawLoad('i64', b.add(b.cpu, segment(SEGMENT.cs)), SEG.limit, 32))
}
/** #GP at the branch. JMP and Jcc to relative targets are checked by `branch`. */
const checkTarget = (b: SemanticsBuilder, target: Value): void => b.raiseIf(isOutside(b, target), VECTOR.GP)

/** Counts rCX down by the address size, unless the target is #GP; flags stay. `also`: the loop's other condition. */
function loop(b: SemanticsBuilder, also?: Value): void {
  const count = b.truncate(b.sub(b.slot(gpr(RCX), 'i64', b.addressSize), 1), b.addressSize)
  const taken = also ? b.and(b.ne(count, 0), also) : b.ne(count, 0)
  if (b.leavesPage) b.raiseIf(b.and(taken, isOutside(b, b.relativeTarget())), VECTOR.GP)
  b.writeRegister(RCX, b.addressSize, count)
  b.branch(taken)
}

export const control: Record<string, Semantics> = {
  jcc: (b) => b.branch(b.condition(b.instruction.row.form.opcode & 15)),
  jmp: (b) => b.branch(),
  jcxz: (b) => b.branch(b.eqz(b.slot(gpr(RCX), 'i64', b.addressSize))),
  loop: (b) => loop(b),
  loope: (b) => loop(b, b.flag('zf')),
  loopne: (b) => loop(b, b.eqz(b.flag('zf'))),
  call: (b) => {
    if (b.leavesPage) checkTarget(b, b.relativeTarget())
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
