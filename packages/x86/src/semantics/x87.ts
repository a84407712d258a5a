/**
 * x87 instructions, but for those that save or load the environment (x87-environment.ts). The exact library does the work.
 * (SDM Vol. 2A, "FADD" and the other pages)
 */
import { X87_OPERATION, X87_STORE } from '../float/library.ts'
import { S } from '../state/layout.ts'
import type { Operand, Semantics, SemanticsBuilder, Value } from './builder.ts'
import { quickExchange, quickLoad, quickLoadInteger, quickLoadRegister, quickStoreDouble, quickStoreRegister } from './x87-quick.ts'
import { recordPointers, setTop, top, waitForX87 } from './x87-state.ts'

/** i in ST(i), i32. */
const index = (b: SemanticsBuilder): Value => b.and(b.escape(), 7)

/** An exception that is raised stays pending until the next instruction that waits: the routines' answers are not needed. */
const routine = (b: SemanticsBuilder, name: string, ...args: (Value | number)[]): Value =>
  b.call('i32', name, b.cpu, ...args.map((arg) => (typeof arg === 'number' ? b.i32(arg) : arg)))

/** An instruction on the register stack alone. */
const onStack =
  (name: string, ...args: (number | ((b: SemanticsBuilder) => Value))[]): Semantics =>
  (b) => {
    waitForX87(b)
    recordPointers(b)
    routine(b, name, ...args.map((arg) => (typeof arg === 'number' ? arg : arg(b))))
  }

// ---------------------------------------------------------------------- arithmetic and comparison

/** A number in memory as the routines take it, and the suffix of those that do. */
function number(b: SemanticsBuilder, operand: Operand): { bits: Value; suffix: string } {
  const value = operand.read()
  if (operand.spec.size === 'f32') return { bits: b.wrap(value), suffix: 'f32' }
  if (operand.spec.size === 'f64') return { bits: value, suffix: 'f64' }
  return { bits: b.signExtend(value, operand.width), suffix: 'integer' }
}

/** FADD and similar: ST(0) by memory, ST(0) by ST(i), or ST(i) by ST(0). */
const arithmetic =
  (operation: number, pops: 0 | 1 = 0): Semantics =>
  (b, dst) => {
    waitForX87(b)
    if (dst!.isMemory) {
      const { bits, suffix } = number(b, dst!)
      recordPointers(b)
      routine(b, `x87_arith_${suffix}`, operation, bits)
    } else {
      recordPointers(b)
      const [to, from] = dst!.spec.kind === 'ST0' ? [b.i32(0), index(b)] : [index(b), b.i32(0)]
      routine(b, 'x87_arith', operation, to, from, pops)
    }
  }

/** FCOM, FUCOM: `pops` registers afterwards. Without operands it is ST(1). */
const compare =
  (signalling: 0 | 1, pops: 0 | 1 | 2): Semantics =>
  (b, first) => {
    waitForX87(b)
    if (first?.isMemory) {
      const { bits, suffix } = number(b, first)
      recordPointers(b)
      routine(b, `x87_compare_${suffix}`, bits, pops)
    } else {
      recordPointers(b)
      routine(b, 'x87_compare', index(b), signalling, pops)
    }
  }

/** FCOMI and similar. OF, SF and AF are cleared. (SDM Vol. 2A, "FCOMI") */
const compareToFlags =
  (signalling: 0 | 1, pops: 0 | 1): Semantics =>
  (b) => {
    waitForX87(b)
    recordPointers(b)
    routine(b, 'x87_order', index(b), signalling, pops)
    const flags = b.slot(S.value, 'i32')
    const bit = (at: number) => b.and(b.shrU(flags, at), 1)
    b.setFlag('cf', bit(0))
    b.setFlag('zf', bit(6))
    b.setSignParity(b.i32(0), bit(2))
    b.setFlag('of', 0)
    b.setFlag('af', 0)
  }

// ---------------------------------------------------------------------- loads and stores

const TEN_BYTES = 10

const load: Semantics = (b, src) => {
  waitForX87(b)
  if (!src!.isMemory) {
    recordPointers(b)
    return quickLoadRegister(b, index(b), () => void routine(b, 'x87_load_st', index(b)))
  }
  if (src!.spec.size === 'f80') return loadTen(b, 'x87_load_f80')
  const { bits, suffix } = number(b, src!)
  recordPointers(b)
  quickLoad(b, suffix as 'f32' | 'f64', bits, () => void routine(b, `x87_load_${suffix}`, bits))
}

/** FLD m80, FBLD: eight bytes and two. */
function loadTen(b: SemanticsBuilder, name: string): void {
  const linear = b.linear('operand', b.address(), TEN_BYTES, 'read')
  const low = b.load(linear, 8)
  const high = b.load(b.add(linear, 8), 2)
  recordPointers(b)
  routine(b, name, low, b.wrap(high))
}

const loadInteger: Semantics = (b, src) => {
  waitForX87(b)
  const { bits } = number(b, src!)
  recordPointers(b)
  quickLoadInteger(b, bits, () => void routine(b, 'x87_load_integer', bits))
}

/** Stores what a routine leaves in the `value` slot. That memory can be written is known before the stack pops. */
function storeResult(b: SemanticsBuilder, dst: Operand, name: string, ...args: number[]): void {
  dst.readToWrite()
  recordPointers(b)
  const exact = () => {
    const answer = routine(b, name, ...args)
    b.if(b.eqz(b.and(answer, X87_STORE.nothingToWrite)), () => dst.write(b.slot(S.value, 'i64', dst.width)))
  }
  if (dst.spec.size === 'f64') quickStoreDouble(b, args[0] === 1, (bits) => dst.write(bits), exact)
  else exact()
}

function storeTen(b: SemanticsBuilder, name: string): void {
  const linear = b.linear('operand', b.address(), TEN_BYTES, 'write')
  const low = b.modify(linear, 8)
  const high = b.modify(b.add(linear, 8), 2)
  recordPointers(b)
  const answer = routine(b, name)
  b.if(b.eqz(b.and(answer, X87_STORE.nothingToWrite)), () => {
    const significand = b.slot(S.value)
    const signExponent = b.slot(S.value + 8, 'i64', 16)
    low.write(significand)
    high.write(signExponent)
  })
}

const store =
  (pops: 0 | 1): Semantics =>
  (b, dst) => {
    waitForX87(b)
    if (!dst!.isMemory) {
      recordPointers(b)
      quickStoreRegister(b, index(b), pops === 1, () => void routine(b, 'x87_store_st', index(b), pops))
    } else if (dst!.spec.size === 'f80') storeTen(b, 'x87_store_f80')
    else storeResult(b, dst!, `x87_store_f${dst!.width}`, pops)
  }

const storeInteger =
  (truncate: 0 | 1, pops: 0 | 1): Semantics =>
  (b, dst) => {
    waitForX87(b)
    storeResult(b, dst!, 'x87_store_integer', dst!.width, truncate, pops)
  }

/** FCMOVcc: opcode DA and DB, the latter negated; ModRM.reg picks B, E, BE, U. */
const conditionalMove: Semantics = (b) => {
  waitForX87(b)
  recordPointers(b)
  const { opcode, reg } = b.instruction
  const code = [2, 4, 6, 10][reg & 3]! | (opcode & 1)
  routine(b, 'x87_move', index(b), b.condition(code))
}

// ---------------------------------------------------------------------- control

const exchange: Semantics = (b) => {
  waitForX87(b)
  recordPointers(b)
  quickExchange(b, index(b), () => void routine(b, 'x87_exchange', index(b)))
}

const free: Semantics = (b) => {
  waitForX87(b)
  recordPointers(b)
  b.run('x87_free', b.cpu, index(b))
}
/** ST(0) becomes empty and TOP moves on, whatever it was. */
function dropTop(b: SemanticsBuilder): void {
  b.run('x87_free', b.cpu, b.i32(0))
  setTop(b, b.and(b.add(top(b), 1), 7))
}
/** FFREEP. */
const freeAndPop: Semantics = (b) => {
  free(b)
  dropTop(b)
}
/** FSTPNCE, an alias of FSTP that pops an empty register without an exception. */
const storeUnchecked: Semantics = (b) => {
  waitForX87(b)
  recordPointers(b)
  b.if(
    b.and(b.shrU(b.slot(S.fpuTag, 'i32'), top(b)), 1),
    () => void routine(b, 'x87_store_st', index(b), 1),
    () => void routine(b, 'x87_rotate', 1),
  )
}

const examine: Semantics = (b) => {
  waitForX87(b)
  recordPointers(b)
  b.run('x87_examine', b.cpu)
}

const fnstcw: Semantics = (b, dst) => dst!.write(b.extendU(b.slot(S.fpuControl, 'i32')))
const fnstsw: Semantics = (b, dst) => dst!.write(b.extendU(b.slot(S.fpuStatus, 'i32')))

const fldcw: Semantics = (b, src) => {
  waitForX87(b)
  routine(b, 'x87_load_control', b.wrap(src!.read()))
}

const fnclex: Semantics = (b) => b.run('x87_clear_exceptions', b.cpu)

export const fninit: Semantics = (b) => {
  b.run('x87_initialize', b.cpu)
  for (const pointer of [S.fpuIp, S.fpuDp]) b.setSlot(pointer, b.const(0))
  for (const word of [S.fpuOpcode, S.fpuSelectors]) b.setSlot(word, b.i32(0))
}

const fwait: Semantics = (b) => waitForX87(b)
const fnop: Semantics = (b) => {
  waitForX87(b)
  recordPointers(b)
}

const operations = {
  fadd: X87_OPERATION.add,
  fmul: X87_OPERATION.multiply,
  fsub: X87_OPERATION.subtract,
  fsubr: X87_OPERATION.subtractReversed,
  fdiv: X87_OPERATION.divide,
  fdivr: X87_OPERATION.divideReversed,
}

const byOperation = Object.entries(operations).flatMap(([name, operation]): [string, Semantics][] => [
  [name, arithmetic(operation)],
  [`${name}p`, arithmetic(operation, 1)],
])
const constants = ['fld1', 'fldl2t', 'fldl2e', 'fldpi', 'fldlg2', 'fldln2', 'fldz'].map(
  (name, n): [string, Semantics] => [name, onStack('x87_load_constant', n)],
)

export const x87: Record<string, Semantics> = {
  ...Object.fromEntries([...byOperation, ...constants]),
  fcom: compare(1, 0),
  fcomp: compare(1, 1),
  fcompp: compare(1, 2),
  fucom: compare(0, 0),
  fucomp: compare(0, 1),
  fucompp: compare(0, 2),
  fcomi: compareToFlags(1, 0),
  fcomip: compareToFlags(1, 1),
  fucomi: compareToFlags(0, 0),
  fucomip: compareToFlags(0, 1),
  fld: load,
  fild: loadInteger,
  fbld: (b) => {
    waitForX87(b)
    loadTen(b, 'x87_load_bcd')
  },
  fst: store(0),
  fstp: store(1),
  fstpnce: storeUnchecked,
  fist: storeInteger(0, 0),
  fistp: storeInteger(0, 1),
  fisttp: storeInteger(1, 1),
  fbstp: (b) => {
    waitForX87(b)
    storeTen(b, 'x87_store_bcd')
  },
  fxch: exchange,
  fcmovcc: conditionalMove,
  ffree: free,
  ffreep: freeAndPop,
  fincstp: onStack('x87_rotate', 1),
  fdecstp: onStack('x87_rotate', -1),
  ftst: onStack('x87_test'),
  fxam: examine,
  fchs: onStack('x87_negate'),
  fabs: onStack('x87_absolute'),
  fsqrt: onStack('x87_sqrt'),
  frndint: onStack('x87_round'),
  fscale: onStack('x87_scale'),
  fxtract: onStack('x87_extract'),
  fprem: onStack('x87_remainder', 0),
  fprem1: onStack('x87_remainder', 1),
  fsin: onStack('x87_sine'),
  fcos: onStack('x87_cosine'),
  fsincos: onStack('x87_sine_cosine'),
  fptan: onStack('x87_tangent'),
  fpatan: onStack('x87_arc_tangent'),
  f2xm1: onStack('x87_exponential'),
  fyl2x: onStack('x87_logarithm'),
  fyl2xp1: onStack('x87_logarithm_plus_one'),
  fnstcw,
  fnstsw,
  fldcw,
  fnclex,
  fninit,
  fwait,
  fnop,
  fnnop: () => {},
}
