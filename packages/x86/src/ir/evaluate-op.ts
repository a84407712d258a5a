/** The meaning of each scalar operation, on BigInt bit patterns. For constant folding and the slow evaluator, not for hot paths. */

const u = (bits: number) => (value: bigint) => BigInt.asUintN(bits, value)
const s = (bits: number) => (value: bigint) => BigInt.asIntN(bits, value)

/** A scalar operation on bit patterns (unsigned BigInt of the operand's width), or undefined where this table has none (floats, vectors). */
export type Evaluate = (a: bigint, b: bigint) => bigint

const table: Record<string, Evaluate> = {}

for (const bits of [32, 64]) {
  const unsigned = u(bits)
  const signed = s(bits)
  const modulus = BigInt(bits)
  const t = `i${bits}.`
  const flag = (value: boolean) => (value ? 1n : 0n)
  Object.assign(table, {
    [`${t}eqz`]: (a) => flag(a === 0n),
    [`${t}eq`]: (a, b) => flag(a === b),
    [`${t}ne`]: (a, b) => flag(a !== b),
    [`${t}lt_s`]: (a, b) => flag(signed(a) < signed(b)),
    [`${t}lt_u`]: (a, b) => flag(a < b),
    [`${t}gt_s`]: (a, b) => flag(signed(a) > signed(b)),
    [`${t}gt_u`]: (a, b) => flag(a > b),
    [`${t}le_s`]: (a, b) => flag(signed(a) <= signed(b)),
    [`${t}le_u`]: (a, b) => flag(a <= b),
    [`${t}ge_s`]: (a, b) => flag(signed(a) >= signed(b)),
    [`${t}ge_u`]: (a, b) => flag(a >= b),
    [`${t}add`]: (a, b) => unsigned(a + b),
    [`${t}sub`]: (a, b) => unsigned(a - b),
    [`${t}mul`]: (a, b) => unsigned(a * b),
    [`${t}div_s`]: (a, b) => unsigned(signed(a) / signed(b)),
    [`${t}div_u`]: (a, b) => a / b,
    [`${t}rem_s`]: (a, b) => unsigned(signed(a) % signed(b)),
    [`${t}rem_u`]: (a, b) => a % b,
    [`${t}and`]: (a, b) => a & b,
    [`${t}or`]: (a, b) => a | b,
    [`${t}xor`]: (a, b) => a ^ b,
    [`${t}shl`]: (a, b) => unsigned(a << (b % modulus)),
    [`${t}shr_u`]: (a, b) => a >> (b % modulus),
    [`${t}shr_s`]: (a, b) => unsigned(signed(a) >> (b % modulus)),
    [`${t}rotl`]: (a, b) => unsigned((a << (b % modulus)) | (a >> (modulus - (b % modulus)))),
    [`${t}rotr`]: (a, b) => unsigned((a >> (b % modulus)) | (a << (modulus - (b % modulus)))),
    [`${t}extend8_s`]: (a) => unsigned(s(8)(a)),
    [`${t}extend16_s`]: (a) => unsigned(s(16)(a)),
    [`${t}clz`]: (a) => BigInt(bits - (a === 0n ? 0 : a.toString(2).length)),
    [`${t}ctz`]: (a) => (a === 0n ? modulus : BigInt(a.toString(2).length - 1 - a.toString(2).lastIndexOf('1'))),
    [`${t}popcnt`]: (a) => BigInt(a.toString(2).replaceAll('0', '').length),
  } satisfies Record<string, Evaluate>)
}
Object.assign(table, {
  'i64.extend32_s': (a) => u(64)(s(32)(a)),
  'i32.wrap_i64': (a) => u(32)(a),
  'i64.extend_i32_s': (a) => u(64)(s(32)(a)),
  'i64.extend_i32_u': (a) => a,
} satisfies Record<string, Evaluate>)

export const EVALUATE: Readonly<Record<string, Evaluate>> = table
