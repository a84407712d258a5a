import { ModuleBuilder } from '@nonroot/wasm-encoder'
import { describe, expect, it } from 'vitest'
import { lower } from '../backend/lower.ts'
import { IrBuilder } from './builder.ts'
import { evaluate, evaluateOp } from './evaluate.ts'
import type { Body } from './nodes.ts'
import { OPS, type Op, type Type } from './ops.ts'

const RESULT = 48
const BITS: Record<Type, number> = { i32: 32, i64: 64, f32: 32, f64: 64, v128: 128 }

/** Compiles bodies of functions (i32) → () over one memory. */
function compile(bodies: readonly Body[], memory: WebAssembly.Memory): ((base: number) => void)[] {
  const module = new ModuleBuilder()
  module.importMemory({ module: 'e', name: 'memory', initial: 1, maximum: 1, shared: true })
  const type = module.type(['i32'], [])
  for (const [i, body] of bodies.entries()) {
    const { code, locals } = lower(body, 1)
    module.exportFunction(String(i), module.function(type, locals, code))
  }
  const { exports } = new WebAssembly.Instance(new WebAssembly.Module(module.toBytes()), { e: { memory } })
  return bodies.map((_, i) => exports[i] as (base: number) => void)
}

/** Operands from memory, through one operation, to memory. */
function bodyOf(op: Op, lanes: readonly number[] | undefined): Body {
  const b = new IrBuilder()
  const base = b.param(0)
  const args = op.params.map((type, i) => b.rawLoad(type, base, 16 * i, BITS[type] as 32))
  b.rawStore(base, RESULT, BITS[op.result] as 32, b.lane(op.name, lanes, ...args))
  b.return()
  return b.root
}

function lanesOf(op: Op, round: number): number[] | undefined {
  if (op.lanes === 0) return undefined
  if (op.lanes === 16) return Array.from({ length: 16 }, (_, i) => (i * 7 + round * 5) % 32)
  return [round % Number(op.name.slice(op.name.indexOf('x') + 1, op.name.indexOf('.')))]
}

let seed = 1
const random = (): number => (seed = (Math.imul(seed, 1664525) + 1013904223) | 0) >>> 0
const EDGES_64 = [0n, 1n, 2n, 0x7fn, 0x80n, 0xffn, 0x7fffn, 0x8000n, 0x7fff_ffffn, 0x8000_0000n, 0xffff_ffffn, 1n << 63n, (1n << 63n) - 1n, (1n << 64n) - 1n, 0x4340_0000_0000_0001n, 0x3fe0_0000_0000_0000n, 0x3f00_0000_bf80_0000n, 0x7f80_0000_7fc0_0000n, 0x7ff0_0000_0000_0000n, 0xc1e0_0000_0020_0000n]
function bits64(): bigint {
  const kind = random() >>> 30
  const wild = (BigInt(random()) << 32n) | BigInt(random())
  if (kind === 0) return wild
  const edge = EDGES_64[(random() >>> 8) % EDGES_64.length]!
  return kind === 1 ? BigInt.asUintN(64, edge + BigInt((random() >>> 29) - 4)) : edge
}

const arithmetic = /\.(add|sub|mul|div|sqrt|min|max|ceil|floor|trunc|nearest|demote_.*|promote_.*)$/
/** NaNs that arithmetic makes have any payload. */
function settleNaNs(op: Op, value: bigint): bigint {
  if (!/^f/.test(op.name) || !arithmetic.test(op.name)) return value
  const bits = op.name.startsWith('f32') ? 32 : 64
  const infinity = bits === 32 ? 0x7f80_0000n : 0x7ff0_0000_0000_0000n
  let settled = 0n
  for (let at = 0; at < BITS[op.result]; at += bits) {
    const lane = BigInt.asUintN(bits, value >> BigInt(at))
    settled |= (BigInt.asUintN(bits - 1, lane) > infinity ? infinity + 1n : lane) << BigInt(at)
  }
  return settled
}

describe('the evaluator', () => {
  it('agrees with WebAssembly on every operation', () => {
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true })
    const view = new DataView(memory.buffer)
    const cases = Object.values(OPS).flatMap((op) => Array.from({ length: op.lanes ? 8 : 1 }, (_, round) => ({ op, lanes: lanesOf(op, round) })))
    const bodies = cases.map(({ op, lanes }) => bodyOf(op, lanes))
    const functions = compile(bodies, memory)
    const wide = (at: number) => view.getBigUint64(at, true) | (view.getBigUint64(at + 8, true) << 64n)
    for (const [i, { op, lanes }] of cases.entries()) {
      for (let round = 0; round < 200; round++) {
        for (let word = 0; word < 6; word++) view.setBigUint64(8 * word, bits64(), true)
        if (round % 4 === 0 && op.params.length > 1) view.setBigUint64(16, view.getBigUint64(0, true), true)
        const before = [0, 16, 32].map(wide)
        const mask = (1n << BigInt(BITS[op.result])) - 1n
        let wanted: bigint | undefined
        try {
          functions[i]!(0)
          wanted = settleNaNs(op, wide(RESULT) & mask)
        } catch {
          expect(() => evaluate(bodies[i]!, [0], { memory: view, call: () => undefined }), op.name).toThrow()
          continue
        }
        view.setBigUint64(RESULT, 0n, true)
        evaluate(bodies[i]!, [0], { memory: view, call: () => undefined })
        const found = settleNaNs(op, wide(RESULT) & mask)
        expect(found.toString(16), `${op.name} ${lanes ?? ''} of ${before.map((x) => x.toString(16)).join(', ')}`).toBe(wanted.toString(16))
      }
    }
  })

  it('throws where a division traps, and only if the result is used', () => {
    expect(() => evaluateOp('i64.div_u', [1n, 0n])).toThrow()
    const b = new IrBuilder()
    const base = b.param(0)
    b.op('i64.div_u', b.rawLoad('i64', base, 0, 64), b.rawLoad('i64', base, 8, 64))
    b.return()
    expect(evaluate(b.root, [0], { memory: new DataView(new ArrayBuffer(64)), call: () => undefined })).toEqual({ kind: 'return' })
  })

  it('follows control: loops, breaks out of blocks, tail calls', () => {
    const b = new IrBuilder()
    const out = {}
    const counter = b.variable(b.const(5))
    const sum = b.variable(b.const(0))
    b.block(() => {
      b.loop(() => {
        b.if(b.eqz(b.get(counter)), () => b.break(out))
        b.assign(sum, b.add(b.get(sum), b.get(counter)))
        b.assign(counter, b.sub(b.get(counter), 1))
        b.continue()
      })
    }, out)
    b.tail(b.wrap(b.get(sum)), b.param(0), b.i32(7))
    expect(evaluate(b.root, [64], { memory: new DataView(new ArrayBuffer(8)), call: () => undefined })).toEqual({ kind: 'tail', target: 15, args: [64, 7] })
  })

  it('copies and fills as bulk instructions do', () => {
    const memory = new DataView(new ArrayBuffer(64))
    const b = new IrBuilder()
    b.rawFill(b.i32(8), b.i32(0x1ab), b.i32(4))
    b.rawCopy(b.i32(10), b.i32(8), b.i32(8))
    b.return()
    evaluate(b.root, [], { memory, call: () => undefined })
    expect([...new Uint8Array(memory.buffer, 8, 10)]).toEqual([0xab, 0xab, 0xab, 0xab, 0xab, 0xab, 0, 0, 0, 0])
  })
})
