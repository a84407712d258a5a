/**
 * String instructions. A repeated one is interruptible after every round: registers are up to date, so a fault, a budget
 * that ran out or an interrupt simply leaves, and the instruction starts again. Runs within a page go in bulk.
 * (SDM Vol. 2B, "REP/REPE/REPZ/REPNE/REPNZ")
 */
import { gpr, RAX, RCX, RDI, RSI, S, SEGMENT, EXIT } from '../state/layout.ts'
import { FLAG } from '../state/register-bits.ts'
import { subtraction } from './integer.ts'
import { ifSliceIsOver, sliceLeft } from './slice.ts'
import type { Operand, Semantics, SemanticsBuilder, Value, Width } from './builder.ts'

/** rSI, rDI and rCX have the width of the address size. */
const pointer = (b: SemanticsBuilder, register: number): Value => b.slot(gpr(register), 'i64', b.addressSize)
const advance = (b: SemanticsBuilder, register: number, by: Value): void =>
  b.writeRegister(register, b.addressSize, b.truncate(b.add(pointer(b, register), by), b.addressSize))

const source = (b: SemanticsBuilder, bytes: number): Value => b.load(b.linear('operand', pointer(b, RSI), bytes, 'read'), bytes)
const destination = (b: SemanticsBuilder, bytes: number): Value =>
  b.load(b.linear(SEGMENT.es, pointer(b, RDI), bytes, 'read'), bytes, SEGMENT.es)

/**
 * Runs `once`, or under REP as often as rCX says. `bulk` may do many elements at once: it yields how many (i64, 0 = none).
 * `until`: i32, true ends a repeated compare.
 */
function repeated(b: SemanticsBuilder, once: () => void, options: { bulk?: (count: Value) => Value; until?: () => Value } = {}): void {
  if (!b.instruction.rep) return once()
  b.loop(() => {
    const count = pointer(b, RCX)
    b.if(b.eqz(count), () => b.break())
    const done = b.variable(b.const(1), 'done')
    const bulk = options.bulk?.(count)
    if (bulk) {
      b.assign(done, bulk)
      b.if(b.eqz(bulk), () => {
        once()
        b.assign(done, 1)
      })
    } else once()
    advance(b, RCX, b.sub(0, b.get(done)))
    // Elements count against the budget, so that a long string cannot delay interrupts: by the change of rCX, not by iterations. The division into
    // iterations depends on the TLB, and guest time must not.
    const after = b.sub(count, b.get(done))
    const paid = bulk ? b.wrap(b.sub(b.shrU(count, BULK_SHIFT), b.shrU(after, BULK_SHIFT))) : b.i32(1)
    const left = b.sub(b.slot(S.budget, 'i32'), paid)
    b.setSlot(S.budget, left)
    if (options.until) b.if(options.until(), () => b.break())
    b.if(b.eqz(pointer(b, RCX)), () => b.break())
    ifSliceIsOver(b, left, () => {
      b.setSlot(S.exit, b.i32(EXIT.budget))
      b.leave()
    })
  })
}

/** Elements of a bulk instruction that cost as much as an instruction: 8. */
const BULK_SHIFT = 3
/** Elements until the slice ends: as many as one by one would come to. */
const affordable = (b: SemanticsBuilder, count: Value): Value =>
  b.add(b.add(b.and(count, (1 << BULK_SHIFT) - 1), b.shl(b.extendU(b.sub(sliceLeft(b), 1)), BULK_SHIFT)), 1)

/** How many elements from `linear` on lie wholly on its page. */
const elementsOnPage = (b: SemanticsBuilder, linear: Value, bytes: number): Value =>
  b.divU(b.sub(4096, b.and(linear, 4095)), bytes)
const least = (b: SemanticsBuilder, x: Value, y: Value): Value => b.select(b.ltU(x, y), x, y)
/** Forward, and not one by one: a single step (whose slice ends with the instruction) ends after each iteration. */
const inBulk = (b: SemanticsBuilder): Value =>
  b.and(b.eqz(b.and(b.slot(S.flags, 'i32'), FLAG.DF)), b.gtS(sliceLeft(b), 0))

/** In 64-bit mode only: elsewhere each element is checked against its segment. */
function bulkMove(b: SemanticsBuilder, bytes: number): ((count: Value) => Value) | undefined {
  if (b.codeSize !== 64) return undefined
  return (count) => {
    const from = b.linear('operand', pointer(b, RSI), bytes, 'read')
    const to = pointer(b, RDI)
    const done = b.variable(b.const(0), 'moved')
    const reading = b.plainHost(from, 'read')
    const writing = b.plainHost(to, 'write')
    b.if(b.and(b.and(reading.plain, writing.plain), inBulk(b)), () => {
      const wanted = least(b, count, affordable(b, count))
      const onPages = least(b, least(b, wanted, elementsOnPage(b, from, bytes)), elementsOnPage(b, to, bytes))
      // Copying forward over itself repeats a pattern: never further at once than the two are apart.
      const apart = b.divU(b.extendU(b.sub(writing.host, reading.host)), bytes)
      const n = least(b, onPages, b.select(b.eqz(apart), b.const(0), apart))
      const moved = b.mul(n, bytes)
      b.rawCopy(writing.host, reading.host, b.wrap(moved))
      b.assign(done, n)
      advance(b, RSI, moved)
      advance(b, RDI, moved)
    })
    return b.get(done)
  }
}

function bulkStore(b: SemanticsBuilder, bytes: number, width: Width): ((count: Value) => Value) | undefined {
  if (b.codeSize !== 64) return undefined
  return (count) => {
    const to = pointer(b, RDI)
    const value = b.readRegister(RAX, width)
    const done = b.variable(b.const(0), 'stored')
    const writing = b.plainHost(to, 'write')
    // Only a value whose bytes are all alike is a fill.
    const byte = b.and(value, 0xff)
    const uniform = b.eq(value, b.truncate(b.mul(byte, 0x0101010101010101n), width))
    b.if(b.and(b.and(writing.plain, uniform), inBulk(b)), () => {
      const n = least(b, least(b, count, affordable(b, count)), elementsOnPage(b, to, bytes))
      const stored = b.mul(n, bytes)
      b.rawFill(writing.host, b.wrap(byte), b.wrap(stored))
      b.assign(done, n)
      advance(b, RDI, stored)
    })
    return b.get(done)
  }
}

const size = (operand: Operand | undefined): number => operand!.spec.size === 'b' ? 1 : operand!.width / 8

const movs: Semantics = (b, dst) => {
  const bytes = size(dst)
  const bulk = bulkMove(b, bytes)
  repeated(
    b,
    () => {
      b.store(b.linear(SEGMENT.es, pointer(b, RDI), bytes, 'write'), bytes, source(b, bytes), SEGMENT.es)
      advance(b, RSI, b.stringStep(bytes))
      advance(b, RDI, b.stringStep(bytes))
    },
    bulk ? { bulk } : {},
  )
}

const stos: Semantics = (b, dst) => {
  const bytes = size(dst)
  const bulk = bulkStore(b, bytes, (bytes * 8) as Width)
  repeated(
    b,
    () => {
      b.store(b.linear(SEGMENT.es, pointer(b, RDI), bytes, 'write'), bytes, b.readRegister(RAX, (bytes * 8) as Width), SEGMENT.es)
      advance(b, RDI, b.stringStep(bytes))
    },
    bulk ? { bulk } : {},
  )
}

const lods: Semantics = (b, dst) => {
  const bytes = dst!.width / 8
  repeated(b, () => {
    b.writeRegister(RAX, dst!.width, source(b, bytes))
    advance(b, RSI, b.stringStep(bytes))
  })
}

/** REPE (F3) continues while equal, REPNE (F2) while not equal. */
const untilZf = (b: SemanticsBuilder) => ({
  until: () => (b.instruction.rep === 0xf3 ? b.eqz(b.flag('zf')) : b.flag('zf')),
})

const cmps: Semantics = (b, first) => {
  const bytes = size(first)
  repeated(
    b,
    () => {
      const left = source(b, bytes)
      const right = destination(b, bytes)
      advance(b, RSI, b.stringStep(bytes))
      advance(b, RDI, b.stringStep(bytes))
      subtraction(b, (bytes * 8) as Width, left, right)
    },
    untilZf(b),
  )
}

const scas: Semantics = (b, accumulator) => {
  const bytes = accumulator!.width / 8
  repeated(
    b,
    () => {
      const right = destination(b, bytes)
      advance(b, RDI, b.stringStep(bytes))
      subtraction(b, accumulator!.width, b.readRegister(RAX, accumulator!.width), right)
    },
    untilZf(b),
  )
}

export const string: Record<string, Semantics> = { movs, stos, lods, cmps, scas }
