/** PCMPISTRI, PCMPISTRM, PCMPESTRI, PCMPESTRM: SSE4.2's text instructions. The comparison itself is a routine (float-library/text.ts). */
import { gpr, RAX, RCX, RDX } from '../state/layout.ts'
import type { Semantics, SemanticsBuilder, Value } from './builder.ts'
import { high64, lanes, low64, run, shape, splat, widen, zero } from './vector.ts'

/** Elements before the first zero one: 16 or 8 where there is none. */
function implicitLength(b: SemanticsBuilder, vector: Value, words: Value): Value {
  const before = (bits: 8 | 16, count: number) =>
    b.ctz(b.or(b.op(`${shape(bits)}.bitmask`, b.op(`${shape(bits)}.eq`, vector, zero(b))), 1 << count))
  return b.select(words, before(16, 8), before(8, 16))
}

/** The magnitude of EAX or EDX (RAX, RDX with REX.W), at most the number of elements. */
function explicitLength(b: SemanticsBuilder, register: number, count: Value): Value {
  const wide = b.operandSize === 64
  const value = b.signExtend(b.slot(gpr(register), 'i64', wide ? 64 : 32), wide ? 64 : 32)
  const magnitude = b.select(b.ltS(value, 0), b.sub(0, value), value)
  return b.select(b.gtU(magnitude, 16), count, b.select(b.gtU(b.wrap(magnitude), count), count, b.wrap(magnitude)))
}

const compare =
  (length: 'implicit' | 'explicit', result: 'index' | 'mask'): Semantics =>
  (b, first, second, immediate) => {
    const right = second!.read()
    const left = first!.read()
    const control = b.wrap(immediate!.read())
    const words = b.and(control, 1)
    const count = b.shrU(b.i32(16), words)
    const lengthOf = (vector: Value, register: number) => (length === 'implicit' ? implicitLength(b, vector, words) : explicitLength(b, register, count))
    const leftLength = lengthOf(left, RAX), rightLength = lengthOf(right, RDX)
    const hits = b.call('i32', 'text_compare', control, low64(b, left), high64(b, left), leftLength, low64(b, right), high64(b, right), rightLength)
    const outputBit = b.and(control, 0x40)
    if (result === 'index') {
      const lowest = b.ctz(hits), highest = b.sub(31, b.clz(hits))
      const index = b.select(hits, b.select(outputBit, highest, lowest), count)
      b.writeRegister(RCX, 32, b.extendU(index))
    } else {
      const expand = (bits: 8 | 16) => {
        const each = lanes(b, bits, run(0, 128 / bits).map((n) => 1 << (bits === 8 ? n & 7 : n)))
        // Byte lanes 8..15 look at the second byte of the result.
        const source = bits === 8 ? b.op('i8x16.swizzle', b.op('i32x4.splat', hits), lanes(b, 8, run(0, 16).map((n) => n >> 3))) : splat(b, 16, b.extendU(hits))
        return b.op(`${shape(bits)}.eq`, b.op('v128.and', source, each), each)
      }
      const mask = b.select(words, expand(16), expand(8))
      b.writeVector(0, b.select(outputBit, mask, widen(b, b.extendU(hits))))
    }
    b.setFlag('cf', b.ne(hits, 0))
    b.setFlag('zf', b.ltU(rightLength, count))
    b.setSignParity(b.ltU(leftLength, count), b.i32(0))
    b.setFlag('of', b.and(hits, 1))
    b.setFlag('af', 0)
  }

export const text: Record<string, Semantics> = {
  pcmpistri: compare('implicit', 'index'),
  pcmpistrm: compare('implicit', 'mask'),
  pcmpestri: compare('explicit', 'index'),
  pcmpestrm: compare('explicit', 'mask'),
}
