import { spawnSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { S } from '../state/layout.ts'
import { compileFloat, createFloatLibrary, SSE_OPERATION, X87_OPERATION, X87_STORE } from './library.ts'
import { floatBinary } from './module.ts'

/** The smoke runs what takes long. */
const isSmoke = process.env['NONROOT_SMOKE'] !== undefined
const packageFile = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))

/** Runs one of the package's tools. */
const tool = (name: string, ...options: string[]): { status: number | null; output: string } => {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--conditions=@nonroot/source', packageFile(`tools/${name}.ts`), ...options],
    { encoding: 'utf8' },
  )
  return { status, output: stdout + stderr }
}

const CPU = 0x10000

const setUp = () => {
  const memory = new WebAssembly.Memory({ initial: 4, maximum: 65536, shared: true })
  const view = new DataView(memory.buffer)
  const library = createFloatLibrary(compileFloat(), memory)
  view.setUint32(CPU + S.mxcsr, 0x1f80, true)
  library.x87_initialize(CPU)
  return {
    library,
    view,
    slot: (offset: number): number => view.getUint32(CPU + offset, true),
    setSlot: (offset: number, value: number): void => view.setUint32(CPU + offset, value, true),
  }
}

const bits64 = (value: number): bigint => new BigInt64Array(new Float64Array([value]).buffer)[0] as bigint
const value64 = (bits: bigint): number => new Float64Array(new BigInt64Array([bits]).buffer)[0] as number

describe('the module', () => {
  it.runIf(isSmoke)('is what a build of float-library/ gives', { timeout: 120_000 }, () => {
    expect(tool('build-float', '--check')).toMatchObject({ status: 0 })
  })

  it('imports shared memory only and keeps nothing in it', () => {
    expect(WebAssembly.Module.imports(compileFloat())).toEqual([{ module: 'env', name: 'memory', kind: 'memory' }])
    const bytes = floatBinary()
    const sections: number[] = []
    for (let at = 8; at < bytes.length;) {
      sections.push(bytes[at++] as number)
      let size = 0
      for (let shift = 0, more = true; more; shift += 7) {
        const byte = bytes[at++] as number
        size |= (byte & 0x7f) << shift
        more = byte >= 0x80
      }
      at += size
    }
    expect(sections).not.toContain(11)
  })

  it('has the offsets of the vCPU block', () => {
    const text = readFileSync(packageFile('float-library/layout.ts'), 'utf8')
    const offsets = Object.fromEntries(
      [...text.matchAll(/^export const (\w+): u32 = (0x[0-9a-f]+)$/gm)].map(([, name, value]) => [name, Number(value)]),
    )
    expect(offsets).toEqual({
      VALUE: S.value,
      FPR: S.fpr,
      FPU_CONTROL: S.fpuControl,
      FPU_STATUS: S.fpuStatus,
      FPU_TAG: S.fpuTag,
      MXCSR: S.mxcsr,
      FLOAT_EXCEPTION: S.floatException,
    })
  })
})

describe('against processors', () => {
  it('agrees with the recorded answers', { timeout: 60_000 }, () => {
    const { status, output } = tool('oracle-float', '--replay', packageFile('tools/native/float.vectors'))
    expect(output).toContain(' 0 differences')
    expect(status).toBe(0)
  })

  it('agrees with the host', { timeout: 120_000 }, ({ skip }) => {
    if (process.arch !== 'x64' || process.platform !== 'linux') skip()
    const { status, output } = tool('oracle-float', '--cases', isSmoke ? '100000' : '20000', '--seed', '20')
    if (status === 3) skip()
    expect(output).toContain(' 0 differences')
    expect(status).toBe(0)
  })
})

describe('SSE', () => {
  it.each([
    { rounding: 'nearest', control: 0, third: 0.3333333333333333 },
    { rounding: 'down', control: 1, third: 0.3333333333333333 },
    { rounding: 'up', control: 2, third: 0.33333333333333337 },
    { rounding: 'towards zero', control: 3, third: 0.3333333333333333 },
  ])('divides 1 by 3 rounding $rounding', ({ control, third }) => {
    const { library, slot, setSlot } = setUp()
    setSlot(S.mxcsr, 0x1f80 | (control << 13))
    expect(value64(library.f64_arith(CPU, SSE_OPERATION.divide, bits64(1), bits64(3)))).toBe(third)
    expect(slot(S.mxcsr)).toBe(0x1fa0 | (control << 13))
  })

  it('reports an unmasked exception and leaves the destination', () => {
    const { library, view, slot, setSlot } = setUp()
    setSlot(S.mxcsr, 0x1f80 & ~(1 << 9))
    view.setFloat64(CPU + S.xmm, 1, true)
    expect(library.f64x_arith(CPU, SSE_OPERATION.divide, CPU + S.xmm, CPU + S.xmm, CPU + S.xmm + 16, 2)).toBe(4)
    expect(view.getFloat64(CPU + S.xmm, true)).toBe(1)
    expect(slot(S.floatException)).toBe(4)
    expect(slot(S.mxcsr) & 0x3f).toBe(5)
  })

  it('approximates the reciprocal and its root to 1.5 * 2^-12', () => {
    const { library } = setUp()
    const bits = new Int32Array(1)
    const single = new Float32Array(bits.buffer)
    for (let step = 0; step < 4096; step++) {
      const value = Math.fround(1 + step / 2048)
      single[0] = value
      const argument = bits[0] as number
      bits[0] = library.f32_reciprocal(argument)
      expect(Math.abs((single[0] as number) * value - 1)).toBeLessThan(1.5 * 2 ** -12)
      bits[0] = library.f32_reciprocal_root(argument)
      expect(Math.abs((single[0] as number) * Math.sqrt(value) - 1)).toBeLessThan(1.5 * 2 ** -12)
    }
  })
})

describe('x87', () => {
  it('computes in 64 bits of precision and stores 53', () => {
    const { library, view } = setUp()
    library.x87_load_f64(CPU, bits64(1))
    library.x87_arith_f64(CPU, X87_OPERATION.divide, bits64(3))
    const register = CPU + S.fpr + 7 * 16
    expect(view.getBigUint64(register, true)).toBe(0xaaaaaaaaaaaaaaabn)
    expect(view.getUint16(register + 8, true)).toBe(0x3ffd)
    expect(library.x87_store_f64(CPU, 1)).toBe(0)
    expect(view.getFloat64(CPU + S.value, true)).toBe(1 / 3)
  })

  it('answers stack underflow with the indefinite while it is masked', () => {
    const { library, slot, view } = setUp()
    expect(library.x87_store_f64(CPU, 1)).toBe(0)
    expect(view.getBigUint64(CPU + S.value, true)).toBe(0xfff8000000000000n)
    expect(slot(S.fpuStatus)).toBe(0x0841)
  })

  it('stores nothing when the exception is unmasked', () => {
    const { library, slot, setSlot } = setUp()
    setSlot(S.fpuControl, 0x37e)
    expect(library.x87_store_f64(CPU, 1)).toBe(X87_STORE.pending | X87_STORE.nothingToWrite)
    expect(slot(S.fpuStatus)).toBe(0x80c1)
  })

  it.each([
    { name: 'FSIN', call: 'x87_sine', argument: 1, result: Math.sin(1) },
    { name: 'FCOS', call: 'x87_cosine', argument: 1, result: Math.cos(1) },
    { name: 'FPTAN', call: 'x87_tangent', argument: 1, result: 1 },
    { name: 'F2XM1', call: 'x87_exponential', argument: 0.5, result: Math.SQRT2 - 1 },
  ] as const)('$name of $argument', ({ call, argument, result }) => {
    const { library, view } = setUp()
    library.x87_load_f64(CPU, bits64(argument))
    library[call](CPU)
    library.x87_store_f64(CPU, 1)
    expect(view.getFloat64(CPU + S.value, true)).toBeCloseTo(result, 15)
  })

  it('leaves an angle of 2^63 alone and says so in C2', () => {
    const { library, slot } = setUp()
    library.x87_load_f64(CPU, bits64(2 ** 63))
    library.x87_sine(CPU)
    expect(slot(S.fpuStatus)).toBe(0x3c00)
  })
})
