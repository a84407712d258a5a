/** What all instructions on the x87 and MMX register file share: pending exceptions, the switch to MMX, pointers. */
import { S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { type SemanticsBuilder, type Value } from './builder.ts'
import { CR0, VECTOR } from '../state/register-bits.ts'

/** Status word. (SDM Vol. 1, "x87 FPU Status Word") */
export const STATUS = { c0: 0x100, c1: 0x200, c2: 0x400, c3: 0x4000, es: 0x80, busy: 0x8000, top: 0x3800, topShift: 11 } as const

/** An exception that an earlier instruction left pending comes now. (SDM Vol. 1, "x87 FPU Exception Handling in Software") */
export function waitForX87(b: SemanticsBuilder): void {
  b.ifUnlikely(b.and(b.slot(S.fpuStatus, 'i32'), STATUS.es), () => {
    b.if(
      b.and(b.slot(S.cr0, 'i32'), CR0.ne),
      () => b.raise(VECTOR.MF),
      () => b.system('x87Pending'),
    )
  })
}

/** Every MMX instruction makes TOP 0 and all registers valid. (SDM Vol. 1, "Effect of MMX Instructions on x87 FPU Registers") */
export function startMmx(b: SemanticsBuilder): void {
  setTop(b, b.i32(0))
  b.setSlot(S.fpuTag, b.i32(0xff))
}

/** TOP, i32. */
export function top(b: SemanticsBuilder): Value {
  return b.and(b.shrU(b.slot(S.fpuStatus, 'i32'), STATUS.topShift), 7)
}
export function setTop(b: SemanticsBuilder, value: Value): void {
  const rest = b.and(b.slot(S.fpuStatus, 'i32'), ~STATUS.top)
  b.setSlot(S.fpuStatus, b.or(rest, b.shl(value, STATUS.topShift)))
}

/** Notes where the last instruction that was not a control instruction was, and its operand. (SDM Vol. 1, "x87 FPU Instruction and Data (Operand) Pointers") */
export function recordPointers(b: SemanticsBuilder): void {
  b.setSlot(S.fpuIp, b.currentRip())
  b.setSlot(S.fpuOpcode, b.escape())
  if (b.instruction.isMemory) b.setSlot(S.fpuDp, b.address())
  // 64-bit code has no use for selectors. (SDM Vol. 1, "x87 FPU Instruction and Data (Operand) Pointers")
  if (b.codeSize === 64) return
  b.setSlot(S.fpuSelectors, b.slot(segment(SEGMENT.cs) + SEG.selector, 'i32', 16), 16)
  if (b.instruction.isMemory) b.setSlot(S.fpuSelectors + 2, b.operandSelector(), 16)
}
