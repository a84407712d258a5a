import { describe, expect, it } from 'vitest'
import { Bytes, ModuleBuilder } from './index.ts'

describe('LEB128', () => {
  it.each([
    [0n, [0]], [63n, [63]], [64n, [0xc0, 0]], [-1n, [0x7f]], [-65n, [0xbf, 0x7f]], [0x7fffffffn, [0xff, 0xff, 0xff, 0xff, 7]],
    [1n << 63n, [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x7f]],
  ])('i64 %s', (value, bytes) => {
    const out = new Bytes(1)
    out.i64(value)
    expect([...out.toUint8Array()]).toEqual(bytes)
  })
})

it.each([
  [0, [0x80, 0]], [127, [0xff, 0]], [128, [0x80, 1]], [0x3fff, [0xff, 0x7f]],
])('u32 %s takes two bytes if padded', (value, bytes) => {
  const out = new Bytes()
  out.padded(value)
  expect([...out.toUint8Array()]).toEqual(bytes)
})

describe('ModuleBuilder', () => {
  it('makes a module that adds, over an imported memory and table', async () => {
    const builder = new ModuleBuilder()
    builder.importMemory({ module: 'e', name: 'm', initial: 1, maximum: 1, shared: true })
    builder.importTable('e', 't', 1)
    const type = builder.type(['i32', 'i64'], ['i64'])
    const twice = builder.importFunction('e', 'twice', builder.type(['i32'], ['i32']))
    const code = new Bytes()
    for (const byte of [0x20, 0, 0x10, twice, 0xac, 0x20, 1, 0x7c, 0x21, 2, 0x20, 2, 0x0b]) code.byte(byte)
    const index = builder.function(type, ['i64'], code.toUint8Array())
    builder.exportFunction('f', index)
    builder.element(0, [index])
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true })
    const table = new WebAssembly.Table({ initial: 1, element: 'anyfunc' })
    const { exports } = new WebAssembly.Instance(new WebAssembly.Module(builder.toBytes()), {
      e: { m: memory, t: table, twice: (x: number) => x * 2 },
    })
    expect((exports['f'] as (a: number, b: bigint) => bigint)(4, -1n)).toBe(7n)
    expect((table.get(0) as (a: number, b: bigint) => bigint)(1, 1n)).toBe(3n)
  })

  it('tells which way a branch mostly goes, counted from the locals on, before the code', () => {
    const builder = new ModuleBuilder()
    builder.function(builder.type([], []), [], new Uint8Array())
    const code = new Bytes()
    for (const byte of [0x41, 0, 0x04, 0x40, 0x0b, 0x0b]) code.byte(byte)
    builder.function(builder.type([], []), ['i32'], code.toUint8Array(), [{ at: 2, likely: false }])
    const bytes = builder.toBytes()
    const text = new TextDecoder('latin1').decode(bytes)
    const at = text.indexOf('metadata.code.branch_hint') + 'metadata.code.branch_hint'.length
    // One function, number 1; one hint, at 5 (a run of locals takes 3), one byte long: unlikely. Then the code section.
    expect([...bytes.subarray(at, at + 7)]).toEqual([1, 1, 1, 5, 1, 0, 10])
  })

  it('asks for functions to be compiled when they are called, with a byte for each', () => {
    const builder = new ModuleBuilder()
    const code = new Bytes()
    code.byte(0x0b)
    for (let n = 0; n < 3; n++) builder.function(builder.type([], []), [], code.toUint8Array())
    builder.compileWhenCalled()
    const bytes = builder.toBytes()
    const at = new TextDecoder('latin1').decode(bytes).indexOf('compilationHints') + 'compilationHints'.length
    expect([...bytes.subarray(at, at + 5)]).toEqual([3, 1, 1, 1, 10])
    expect(() => new WebAssembly.Module(bytes)).not.toThrow()
  })

  it('refuses an import after a function', () => {
    const builder = new ModuleBuilder()
    const type = builder.type([], [])
    builder.function(type, [], new Uint8Array())
    expect(() => builder.importFunction('e', 'late', type)).toThrow('import late after')
  })
})
