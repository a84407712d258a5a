/** Status flags in the vCPU's slots: stored after every operation that sets them, read from there. (state/flags.ts has the slots' format) */
import { IrBuilder, type Operandish } from '../ir/builder.ts'
import type { Value, Width } from '../ir/nodes.ts'
import { S } from '../state/layout.ts'
import {
  adjustBit, carryFlag, overflowBit, parityOf, setsAdjust, type Arithmetic, type ArithmeticKind, type StatusFlag,
} from './flag-formulas.ts'

export abstract class FlagBuilder extends IrBuilder {
  /** Results of flags are known to be dead: writes of flags build nothing. */
  flagsDead = false

  flag(name: StatusFlag): Value {
    switch (name) {
      case 'cf': return this.slot(S.cf, 'i32')
      case 'af': return this.and(this.shrU(this.slot(S.af, 'i32'), 4), 1)
      case 'of': return this.wrap(this.shrU(this.slot(S.of), 63))
      case 'zf': return this.eqz(this.slot(S.zr))
      case 'sf': return this.wrap(this.shrU(this.slot(S.sp), 63))
      case 'pf': return parityOf(this, this.slot(S.sp))
    }
  }
  /**
   * All status flags of an arithmetic or logical result. `left`, `right` and `result` are cut to `width`; for `adc` and `sbb`
   * `right` is given as it was before the carry (i32 `carry`), for `inc` and `dec` it is 1 and CF stays.
   */
  arithmeticFlags(kind: ArithmeticKind, width: Width, left: Value, right: Value, result: Value, carry?: Value): void {
    if (this.flagsDead) return
    const a: Arithmetic = { kind, width, left, right, result, carry }
    if (kind === 'inc' || kind === 'dec') {
      this.setOverflowBit(overflowBit(this, a, () => carry!), width)
      this.setAdjust(left, right, result)
      return this.setResult(result, width)
    }
    const cf = carryFlag(this, a)
    this.setFlag('cf', cf)
    if (kind === 'mul' || kind === 'imul') {
      this.setFlag('of', cf)
      // The others are undefined.
      this.setFlag('af', 0)
      return this.setResult(result, width)
    }
    if (!setsAdjust(kind)) this.setFlag('af', 0)
    this.setOverflowBit(overflowBit(this, a, () => cf), width)
    if (setsAdjust(kind)) this.setAdjust(left, right, result)
    this.setResult(result, width)
  }
  /** Sets one flag from an i32 that is 0 or 1. SF and PF are set together: use `setSignParity`. */
  setFlag(name: 'cf' | 'af' | 'of' | 'zf', value: Operandish): void {
    if (this.flagsDead) return
    const bit = this.as(value, 'i32')
    switch (name) {
      case 'cf': return this.setSlot(S.cf, bit)
      case 'af': return this.setSlot(S.af, this.shl(bit, 4))
      case 'of': return this.setSlot(S.of, this.shl(this.extendU(bit), 63))
      case 'zf': return this.setSlot(S.zr, this.extendU(this.xor(bit, 1)))
    }
  }
  /** Sets SF and PF from i32 bits, apart from any result. */
  setSignParity(sf: Value, pf: Value): void {
    if (this.flagsDead) return
    this.setSlot(S.sp, this.or(this.shl(this.extendU(sf), 63), this.extendU(this.xor(pf, 1))))
  }
  /** OF from an i64 whose bit (width - 1) is the flag. */
  setOverflowBit(value: Value, width: Width): void {
    if (this.flagsDead) return
    this.setSlot(S.of, this.signExtend(value, width))
  }
  /** ZF, SF and PF of a result. */
  setResult(result: Value, width: Width): void {
    if (this.flagsDead) return
    const extended = this.signExtend(result, width)
    this.setSlot(S.zr, extended)
    this.setSlot(S.sp, extended)
  }
  /** AF of an addition or subtraction: bit 4 of left ^ right ^ result. */
  setAdjust(left: Value, right: Value, result: Value): void {
    if (this.flagsDead) return
    this.setSlot(S.af, this.and(this.wrap(adjustBit(this, left, right, result)), 0x10))
  }
  /** The value of condition code `code` (0..15, as in Jcc's opcode) as i32. (SDM Vol. 1, "Condition Codes") */
  condition(code: number): Value {
    const positive = this.#positiveCondition(code >> 1)
    return code & 1 ? this.eqz(positive) : positive
  }
  #positiveCondition(pair: number): Value {
    const less = () => this.ltS(this.xor(this.slot(S.sp), this.slot(S.of)), 0)
    switch (pair) {
      case 0: return this.ltS(this.slot(S.of), 0)
      case 1: return this.flag('cf')
      case 2: return this.flag('zf')
      case 3: return this.or(this.flag('cf'), this.flag('zf'))
      case 4: return this.ltS(this.slot(S.sp), 0)
      case 5: return this.flag('pf')
      case 6: return less()
      default: return this.or(less(), this.flag('zf'))
    }
  }
  /** Status flags gathered in their RFLAGS places, i64 (CF PF AF ZF SF OF), bit 1 not set. */
  statusFlags(): Value {
    const bits: [StatusFlag, number][] = [['cf', 0], ['pf', 2], ['af', 4], ['zf', 6], ['sf', 7], ['of', 11]]
    return this.extendU(bits.map(([name, at]) => this.shl(this.flag(name), at)).reduce((a, b) => this.or(a, b)))
  }
  /** Sets the status flags from their RFLAGS places; `of` false leaves OF (SAHF). */
  setStatusFlags(value: Value, of = true): void {
    if (this.flagsDead) return
    const low = this.wrap(value)
    const bit = (at: number) => this.and(this.shrU(low, at), 1)
    this.setFlag('cf', bit(0))
    this.setSlot(S.af, this.and(low, 0x10))
    this.setFlag('zf', bit(6))
    this.setSignParity(bit(7), bit(2))
    if (of) this.setFlag('of', bit(11))
  }
}
