/** Nanoseconds a library call, from JS, as a rough guide: a call without i64 parameters costs about 6 of them. */
import type { FloatLibrary } from '../../src/float/library.ts'
import { SSE_OPERATION, X87_OPERATION } from '../../src/float/library.ts'
import { S } from '../../src/state/layout.ts'

export function bench(library: FloatLibrary, memory: WebAssembly.Memory, cpu: number): void {
  const view = new DataView(memory.buffer)
  const put = (register: number, signExponent: number, high: number, low: number): void => {
    view.setUint32(cpu + S.fpr + register * 16, low, true)
    view.setUint32(cpu + S.fpr + register * 16 + 4, high, true)
    view.setUint32(cpu + S.fpr + register * 16 + 8, signExponent, true)
  }
  const reset = (): void => {
    view.setUint32(cpu + S.fpuControl, 0x37f, true)
    view.setUint32(cpu + S.fpuStatus, 0, true)
    view.setUint32(cpu + S.fpuTag, 0x7f, true)
    view.setUint32(cpu + S.mxcsr, 0x1f80, true)
    put(0, 0x3ffe, 0xb3333333, 0x33333333)
    put(1, 0x3ffe, 0x9999999a, 0x12345678)
    put(2, 0x3fff, 0x80000000, 0)
    put(3, 0x3fff, 0x80000000, 0)
    // 1 / 0.6 for the second register.
    put(4, 0x3fff, 0xd5555554, 0x70000000)
  }
  const measure = (name: string, operations: number, body: () => void): void => {
    reset()
    for (let warm = 0; warm < 20000; warm++) body()
    reset()
    const rounds = 300000
    const start = performance.now()
    for (let round = 0; round < rounds; round++) body()
    console.log(`${name.padEnd(34)} ${(((performance.now() - start) * 1e6) / rounds / operations).toFixed(1)} ns`)
  }
  const { add, multiply, subtract, divide } = X87_OPERATION
  // Back and forth, so that operands stay ordinary.
  for (const [name, forth, back] of [
    ['add and subtract', add, subtract],
    ['multiply and divide', multiply, divide],
  ] as const) {
    measure(`x87 ${name}`, 2, () => {
      library.x87_arith(cpu, forth, 0, 1, 0)
      library.x87_arith(cpu, back, 0, 1, 0)
    })
  }
  measure('x87 multiply and multiply', 2, () => {
    library.x87_arith(cpu, multiply, 3, 1, 0)
    library.x87_arith(cpu, multiply, 3, 4, 0)
  })
  // x = 3.7 x (1 - x): chaotic, so that operands never repeat. fld st(0); fsubr st, st(3); fmulp; fmul m64
  const factor = 0x400d99999999999an
  measure('x87 logistic map, an operation', 4, () => {
    library.x87_load_st(cpu, 0)
    library.x87_arith(cpu, X87_OPERATION.subtractReversed, 0, 3, 0)
    library.x87_arith(cpu, multiply, 1, 0, 1)
    library.x87_arith_f64(cpu, multiply, factor)
  })
  measure('x87 rotate: the call alone', 1, () => library.x87_rotate(cpu, 1))
  measure('x87 sqrt', 1, () => library.x87_sqrt(cpu))
  measure('x87 compare', 1, () => library.x87_compare(cpu, 1, 1, 0))
  measure('x87 load_st, store_st', 2, () => {
    view.setUint32(cpu + S.fpuTag, 0x0f, true)
    library.x87_load_st(cpu, 0)
    library.x87_store_st(cpu, 1, 1)
  })
  measure('x87 load_f64, store_f64', 2, () => {
    library.x87_load_f64(cpu, factor)
    library.x87_store_f64(cpu, 1)
  })
  measure('x87 load_integer, store_integer', 2, () => {
    library.x87_load_integer(cpu, 12345n)
    library.x87_store_integer(cpu, 32, 0, 1)
  })
  for (const call of ['x87_sine', 'x87_tangent', 'x87_logarithm', 'x87_arc_tangent', 'x87_exponential'] as const) {
    measure(call, 1, () => {
      view.setUint32(cpu + S.fpuStatus, 0, true)
      view.setUint32(cpu + S.fpuTag, 0x0f, true)
      library.x87_load_st(cpu, 2)
      library.x87_load_f64(cpu, 0x3fe5555555555555n)
      library[call](cpu)
    })
  }
  for (const operation of ['add', 'multiply', 'divide', 'squareRoot'] as const) {
    measure(`f64x ${operation}, one lane`, 1, () => {
      view.setFloat64(cpu + S.xmm, 1.1, true)
      view.setFloat64(cpu + S.xmm + 16, 2.7, true)
      library.f64x_arith(cpu, SSE_OPERATION[operation], cpu + S.xmm, cpu + S.xmm, cpu + S.xmm + 16, 1)
    })
  }
}
