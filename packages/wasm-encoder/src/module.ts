/** A WebAssembly module under construction. Knows the binary format's sections, not what the code means. */
import { Bytes } from './bytes.ts'

/** Value types. (WebAssembly Core Specification, "Value Types") */
export const TYPE = { i32: 0x7f, i64: 0x7e, f32: 0x7d, f64: 0x7c, v128: 0x7b } as const
export type ValueType = keyof typeof TYPE

export interface MemoryImport {
  readonly module: string
  readonly name: string
  /** In 64 KiB pages. */
  readonly initial: number
  readonly maximum: number
  readonly shared: boolean
}

interface FunctionImport {
  readonly module: string
  readonly name: string
  readonly type: number
}

/** Which way an `if` or `br_if` mostly goes. (WebAssembly Branch Hinting) */
export interface BranchHint {
  /** Offset of the instruction in the function's code, behind its locals. */
  readonly at: number
  readonly likely: boolean
}

interface Body {
  readonly type: number
  readonly locals: readonly ValueType[]
  readonly code: Uint8Array
  readonly hints: readonly BranchHint[]
}

export class ModuleBuilder {
  readonly #types = new Map<string, number>()
  readonly #imports: FunctionImport[] = []
  readonly #bodies: Body[] = []
  readonly #exports: { name: string; kind: number; index: number }[] = []
  readonly #elements: { offset: number; functions: readonly number[] }[] = []
  #memory: MemoryImport | undefined
  #isLazy = false
  #table: { module: string; name: string; minimum: number } | undefined

  /** The index of the function type with these parameters and results. */
  type(params: readonly ValueType[], results: readonly ValueType[]): number {
    const key = `${params.join()}>${results.join()}`
    let index = this.#types.get(key)
    if (index === undefined) this.#types.set(key, (index = this.#types.size))
    return index
  }

  importMemory(memory: MemoryImport): void {
    this.#memory = memory
  }

  /** Imports table 0, of funcref. */
  importTable(module: string, name: string, minimum: number): void {
    this.#table = { module, name, minimum }
  }

  /** All imports come before the first `function`. Returns the function index. */
  importFunction(module: string, name: string, type: number): number {
    if (this.#bodies.length) throw new Error(`import ${name} after a function was defined`)
    return this.#imports.push({ module, name, type }) - 1
  }

  /** Adds a function; `code` holds its instructions and the final `end`, `hints` are in order. Returns the function index. */
  function(type: number, locals: readonly ValueType[], code: Uint8Array, hints: readonly BranchHint[] = []): number {
    return this.#imports.length + this.#bodies.push({ type, locals, code, hints }) - 1
  }

  /** Asks that functions be compiled when they are first called: few of many will be. */
  compileWhenCalled(): void {
    this.#isLazy = true
  }

  exportFunction(name: string, index: number): void {
    this.#exports.push({ name, kind: 0, index })
  }

  /** Puts functions into table 0 from `offset` on when the module is instantiated. */
  element(offset: number, functions: readonly number[]): void {
    this.#elements.push({ offset, functions })
  }

  toBytes(): Uint8Array<ArrayBuffer> {
    const out = new Bytes(4096)
    for (const byte of [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0]) out.byte(byte)
    section(out, 1, [...this.#types.keys()], (key, to) => {
      const [params = '', results = ''] = key.split('>')
      to.byte(0x60)
      typeList(to, params)
      typeList(to, results)
    })
    const imports = [
      ...(this.#memory ? [memoryImport(this.#memory)] : []),
      ...(this.#table ? [tableImport(this.#table)] : []),
      ...this.#imports.map((f) => (to: Bytes) => {
        to.name(f.module)
        to.name(f.name)
        to.byte(0)
        to.u32(f.type)
      }),
    ]
    section(out, 2, imports, (write, to) => write(to))
    section(out, 3, this.#bodies, (body, to) => to.u32(body.type))
    section(out, 7, this.#exports, (entry, to) => {
      to.name(entry.name)
      to.byte(entry.kind)
      to.u32(entry.index)
    })
    section(out, 9, this.#elements, (element, to) => {
      to.byte(0)
      to.byte(0x41)
      to.i32(element.offset)
      to.byte(0x0b)
      to.u32(element.functions.length)
      for (const index of element.functions) to.u32(index)
    })
    if (this.#isLazy) compilationHints(out, this.#bodies.length)
    const heads = this.#bodies.map(({ locals }) => localsOf(locals))
    this.#branchHints(out, heads)
    section(out, 10, this.#bodies, ({ code }, to, n) => {
      to.u32(heads[n]!.length + code.length)
      to.append(heads[n]!)
      to.put(code)
    })
    return out.toUint8Array()
  }

  #branchHints(out: Bytes, heads: readonly Bytes[]): void {
    const hinted = [...this.#bodies.entries()].filter(([, { hints }]) => hints.length)
    if (!hinted.length) return
    const content = new Bytes(1024)
    content.name('metadata.code.branch_hint')
    content.u32(hinted.length)
    for (const [n, { hints }] of hinted) {
      content.u32(this.#imports.length + n)
      content.u32(hints.length)
      for (const { at, likely } of hints) {
        content.u32(heads[n]!.length + at)
        content.u32(1)
        content.byte(likely ? 1 : 0)
      }
    }
    append(out, CUSTOM, content)
  }
}

function section<T>(out: Bytes, id: number, items: readonly T[], write: (item: T, to: Bytes, n: number) => void): void {
  if (!items.length) return
  const content = new Bytes(1024)
  content.u32(items.length)
  for (const [n, item] of items.entries()) write(item, content, n)
  append(out, id, content)
}
/** Number of the sections that are known by name. */
const CUSTOM = 0
function append(out: Bytes, id: number, content: Bytes): void {
  out.byte(id)
  out.u32(content.length)
  out.append(content)
}

/** A byte for each function: bits 1:0 are when, 1 is lazily; the tiers above are left to choose. (WebAssembly compilation hints, as V8 reads them) */
function compilationHints(out: Bytes, functions: number): void {
  const content = new Bytes(64)
  content.name('compilationHints')
  content.u32(functions)
  for (let n = 0; n < functions; n++) content.byte(1)
  append(out, CUSTOM, content)
}

function typeList(to: Bytes, list: string): void {
  const types = list === '' ? [] : (list.split(',') as ValueType[])
  to.u32(types.length)
  for (const type of types) to.byte(TYPE[type])
}

const memoryImport = (memory: MemoryImport) => (to: Bytes) => {
  to.name(memory.module)
  to.name(memory.name)
  to.byte(2)
  to.byte(memory.shared ? 3 : 1)
  to.u32(memory.initial)
  to.u32(memory.maximum)
}

const tableImport = (table: { module: string; name: string; minimum: number }) => (to: Bytes) => {
  to.name(table.module)
  to.name(table.name)
  to.byte(1)
  to.byte(0x70)
  to.byte(0)
  to.u32(table.minimum)
}

/** Locals are written as runs of one type, as the format asks. */
function localsOf(locals: readonly ValueType[]): Bytes {
  const head = new Bytes(16)
  const runs: { type: ValueType; count: number }[] = []
  for (const type of locals) {
    const last = runs.at(-1)
    if (last?.type === type) last.count++
    else runs.push({ type, count: 1 })
  }
  head.u32(runs.length)
  for (const run of runs) {
    head.u32(run.count)
    head.byte(TYPE[run.type])
  }
  return head
}
