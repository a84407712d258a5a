/**
 * The interpreter's handlers: one wasm function for each shape of instruction, made on demand and in batches. A shape is what a handler is
 * specialised for (row, sizes, kind of address); it reads everything else from the record.
 */
import { createInstruction, BASE_RIP, FS, GS, SS, type Instruction } from '../decode/instruction.ts'
import type { Body, Value } from '../ir/nodes.ts'
import { ACCESS } from '../state/paging-state.ts'
import { isCurrent, tlbEntry, tlbHost, tlbTag } from '../paging/tlb/entry.ts'
import { QUICK_FILL_TYPE, quickFillBody } from '../paging/tlb/quick-fill.ts'
import { LAZY_KINDS } from '../code/lazy-flags.ts'
import { REFILL_TYPE, refillBody } from '../code/refill.ts'
import { SLOW_ACCESSES, slowAccessBodies } from '../code/slow-access.ts'
import { functionModule } from '../backend/function-module.ts'
import { CODE_TYPE, type Built, type ModuleContext, type Signature } from '../ir/function.ts'
import { rows } from '../rows/index.ts'
import { VECTOR } from '../state/register-bits.ts'
import { semantics } from '../semantics/index.ts'
import { MODE, stackSizeOf } from '../state/mode.ts'
import { SHADOW } from '../state/shadow.ts'
import { EXIT, JUMP, JUMP_BITS, JUMP_CACHE, JUMP_ENTRIES, S, SEG, segment, SEGMENT, TLB } from '../state/layout.ts'
import { HandlerBuilder, type HandlerContext } from './handler-builder.ts'
import type { HandlerTable, Special } from '../code/handler-table.ts'
import { FAR, NOT_LINKED, PAGE_REACH } from '../code/record.ts'
import { RECORD } from '../state/record.ts'
import { ENTRY, findEntry } from '../code/block-table.ts'

/** A function that handlers may call. */
export interface HandlerImport extends Signature {
  readonly function: (...args: never[]) => unknown
}

/** A handler's name in the list: row and shape, or that of a special one. */
export type HandlerName = readonly [row: number, shape: number] | Special

/** Handlers generated at build time (prebuilt.ts). */
export interface PrebuiltHandlers {
  /** `coreModules` */
  readonly core: readonly WebAssembly.Module[]
  /** Functions are exported by number. */
  readonly module: WebAssembly.Module
  readonly names: readonly HandlerName[]
}

export interface HandlersOptions extends HandlerContext {
  readonly memory: WebAssembly.Memory
  readonly imports: Readonly<Record<string, HandlerImport>>
  /** Made by this version of the code for this context. */
  readonly prebuilt?: PrebuiltHandlers | undefined
}

/** Types without functions, which can be sent to another thread. */
export function moduleContext(imports: Readonly<Record<string, Signature>>): ModuleContext {
  const all: Record<string, Signature> = { dispatch: CODE_TYPE, find: CODE_TYPE, settleFlags: CODE_TYPE, quickFill: QUICK_FILL_TYPE, refill: REFILL_TYPE, ...SLOW_ACCESSES, ...imports }
  return { signatures: Object.fromEntries(Object.entries(all).map(([name, { params, results, isRare }]) => [name, { params, results, isRare }])) }
}

/**
 * Code in many small modules runs slower (by a fifth with about a hundred): when so many handlers are in small modules, and they are half of all, all
 * are compiled again as one module.
 */
const GATHER = 256

const TABLE_INITIAL = 1 << 14

interface Pending {
  readonly index: number
  readonly build: () => Built
}

export class Handlers implements HandlerTable {
  readonly table = new WebAssembly.Table({ initial: TABLE_INITIAL, element: 'anyfunc' })
  /** Computes lazy flags that compiled code left: (cpu, unused). */
  readonly settleFlags: (cpu: number, unused: number) => void
  /** Enters a block: (cpu, address of its first record). */
  readonly enter: (cpu: number, block: number) => void
  /** The context for which modules of code are made. Plain data that can be sent to another thread. */
  readonly moduleContext: ModuleContext
  readonly #options: HandlersOptions
  /** By row and the rest of the shape: small integers, which maps hash fast. */
  readonly #known: (Map<number, number> | undefined)[] = []
  readonly #special = new Map<Special, number>()
  #pending: Pending[] = []
  /** All handlers, and how many of them are in small modules. */
  readonly #compiled: Pending[] = []
  #scattered = 0
  /** Index 0 stays empty, so that a record that was never written traps. */
  #next = 1
  /** Imports of modules: memory, table, the functions in the options, and those exported by the first modules. */
  readonly #imports: Record<string, WebAssembly.ImportValue>
  readonly #released: number[] = []
  /** Modules of compiled functions that have been garbage-collected, because none of their functions was in the table any more. */
  modulesCollected = 0
  readonly #modules = new FinalizationRegistry<undefined>(() => this.modulesCollected++)

  constructor(options: HandlersOptions) {
    this.#options = options
    this.moduleContext = moduleContext(options.imports)
    const core = options.prebuilt?.core ?? coreModules(options, this.moduleContext).map((bytes) => new WebAssembly.Module(bytes))
    this.#imports = { memory: options.memory, table: this.table }
    for (const [name, { function: f }] of Object.entries(options.imports)) this.#imports[name] = f as WebAssembly.ImportValue
    for (const module of core) Object.assign(this.#imports, this.#instantiate(module))
    const { enter, settleFlags } = this.#imports
    this.enter = enter as (cpu: number, block: number) => void
    this.settleFlags = settleFlags as (cpu: number, unused: number) => void
    if (options.prebuilt) this.#take(options.prebuilt)
  }

  /** Table index for an instruction in a mode; the handler exists after the next `flush`. */
  of(instruction: Instruction, mode: number, flagsDead: boolean): number {
    const key = shapeKey(instruction, mode, flagsDead)
    const { row } = instruction
    const shapes = (this.#known[row.id] ??= new Map())
    const known = shapes.get(key)
    if (known !== undefined) return known
    if (!semantics[row.semantics]) return this.special('undefinedOpcode')
    const copy = { ...instruction }
    const index = this.#queue(() => handlerOf(copy, mode, flagsDead, this.#options)!)
    shapes.set(key, index)
    return index
  }

  special(name: Special): number {
    let index = this.#special.get(name)
    if (index === undefined) {
      index = this.#queue(() => specialHandler(name, this.#options))
      this.#special.set(name, index)
    }
    return index
  }

  /** From now on, code that `emit` builds goes ahead of this special handler's own. Before any code is decoded. */
  precede(name: Special, emit: (b: HandlerBuilder) => void): void {
    this.#special.set(name, this.#queue(() => specialHandler(name, this.#options, emit)))
  }

  #queue(build: Pending['build']): number {
    const index = this.#newIndex()
    this.#pending.push({ index, build })
    return index
  }
  #newIndex(): number {
    const index = this.#next++
    if (index >= this.table.length) this.table.grow(TABLE_INITIAL)
    return index
  }

  /** Enters prebuilt handlers in the table. Before any is requested. */
  #take({ module, names }: PrebuiltHandlers): void {
    const exported = this.#instantiate(module)
    for (const [n, name] of names.entries()) {
      const index = this.#newIndex()
      this.table.set(index, exported[n] as WebAssembly.ExportValue)
      if (typeof name === 'string') this.#special.set(name, index)
      else (this.#known[name[0]] ??= new Map()).set(name[1], index)
    }
  }

  /** Compiles the handlers requested since the last call as one module; occasionally all of them. */
  flush(): void {
    if (!this.#pending.length) return
    let pending = this.#pending
    this.#pending = []
    this.#compiled.push(...pending)
    this.#scattered += pending.length
    if (this.#scattered >= GATHER && this.#scattered * 2 >= this.#compiled.length) {
      pending = this.#compiled
      this.#scattered = 0
    }
    const bodies = pending.map(({ build }) => build())
    const { module, functions } = functionModule(bodies, this.moduleContext)
    for (const [i, f] of functions.entries()) module.element(pending[i]!.index, [f])
    this.#instantiate(new WebAssembly.Module(module.toBytes()))
  }

  /** Puts a module's exports, named by number, into the table. */
  install(module: WebAssembly.Module, count: number): number[] {
    this.flush()
    const exported = this.#instantiate(module)
    this.#modules.register(exported, undefined)
    return Array.from({ length: count }, (_, n) => {
      const index = this.#released.pop() ?? this.#newIndex()
      this.table.set(index, exported[n] as WebAssembly.ExportValue)
      return index
    })
  }
  /** The compiled function at this index is no longer entered; its index may be reused. */
  release(index: number): void {
    this.table.set(index, null)
    this.#released.push(index)
  }

  #instantiate(module: WebAssembly.Module): WebAssembly.Exports {
    return new WebAssembly.Instance(module, { e: this.#imports }).exports
  }
}

/**
 * The functions that all handlers use, as modules that import the exports of those before them. `find` calls `quickFill`, and `dispatch` calls
 * `find`: each in a module of its own.
 */
export function coreModules(options: HandlerContext, context: ModuleContext): Uint8Array<ArrayBuffer>[] {
  const body = (build: (b: HandlerBuilder) => void) => {
    const b = new HandlerBuilder(createInstruction(rows[0]!), 64, false, options)
    build(b)
    return b
  }
  const exporting = (named: readonly [string, Built][]): Uint8Array<ArrayBuffer> => {
    const { module, functions } = functionModule(named.map(([, built]) => built), context)
    for (const [i, [name]] of named.entries()) module.exportFunction(name, functions[i]!)
    return module.toBytes()
  }
  const enter = body((b) => b.tail(b.rawLoad('i32', b.record, RECORD.handler, 32), b.cpu, b.record))
  return [
    exporting([['quickFill', quickFillBody()], ['refill', refillBody()]]),
    exporting([['find', body(find)], ['enter', enter], ['settleFlags', body(settleFlags)], ...slowAccessBodies()]),
    exporting([['dispatch', body(dispatch)]]),
  ]
}

/** A code address truncated for the mode (it wraps at 4 GiB outside 64-bit mode), and its TLB entry. */
function fetchAddress(b: HandlerBuilder, sum: Value): { linear: Value; entry: Value } {
  const linear = b.select(b.eq(b.and(b.slot(S.mode, 'i32'), MODE.codeSize), 2), sum, b.and(sum, 0xffff_ffff))
  return { linear, entry: tlbEntry(b, linear) }
}

/** RIP's entry in the jump cache. Pages of a program differ in the low bits of their number, and functions begin at multiples of 16. */
function jumpEntry(b: HandlerBuilder, rip: Value): Value {
  const low = b.wrap(rip)
  const index = b.and(b.xor(low, b.shrU(low, JUMP_BITS)), JUMP_ENTRIES - 1)
  return b.add(b.cpu, b.shl(index, 4))
}

/** Fills the link that called `dispatch`, and enters the block. The second parameter is the link's address; see FAR. `generation`: the link holds as long. */
function enterFound(b: HandlerBuilder, block: Value, generation: Value): void {
  const link = b.record
  b.if(
    b.and(link, FAR),
    () => {
      b.rawStore(b.sub(link, FAR), 0, 32, block)
      b.rawStore(b.sub(link, FAR), RECORD.farGeneration - RECORD.far, 32, generation)
      b.rawStore(b.sub(link, FAR), RECORD.farPage - RECORD.far, 64, b.slot(S.ripPage))
    },
    () => b.if(b.eq(b.rawLoad('i32', link, 0, 32), NOT_LINKED), () => b.rawStore(link, 0, 32, block)),
  )
  b.tail(b.rawLoad('i32', block, RECORD.handler, 32), b.cpu, block)
}

/** Continues at the RIP slot, by the jump cache or else by `find`. */
function dispatch(b: HandlerBuilder): void {
  const rip = b.slot(S.rip)
  const entry = jumpEntry(b, rip)
  const generation = b.rawLoad('i32', entry, JUMP_CACHE + JUMP.generation, 32)
  b.if(b.and(b.eq(b.rawLoad('i64', entry, JUMP_CACHE + JUMP.rip, 64), rip), isCurrent(b, generation)), () => {
    const block = b.rawLoad('i32', entry, JUMP_CACHE + JUMP.block, 32)
    b.if(b.eq(b.rawLoad('i32', block, RECORD.mode, 32), b.slot(S.mode, 'i32')), () => {
      b.setSlot(S.ripPage, b.and(rip, -4096))
      enterFound(b, block, generation)
    })
  })
  b.tailCall('find', b.cpu, b.record)
}

/** Continues at the RIP slot: instruction TLB, then the hash table of blocks; returns to the run loop on a miss of either. */
function find(b: HandlerBuilder): void {
  const rip = b.slot(S.rip)
  // RIP is already truncated to its width.
  const sum = b.add(rip, b.slot(S.csBase))
  const { linear, entry } = fetchAddress(b, sum)
  const lookup = () => {
    b.setSlot(S.exit, b.i32(EXIT.lookup))
    b.return()
  }
  const address = b.variable(tlbHost(b, linear, entry), 'host')
  b.ifUnlikely(b.ne(tlbTag(b, entry, 'execute'), b.and(linear, -4096)), () => {
    b.assign(address, b.call('i32', 'quickFill', b.cpu, linear, b.i32(ACCESS.fetch), b.i32(1)))
    b.ifUnlikely(b.eqz(b.get(address)), lookup)
  })
  const host = b.get(address)
  const mode = b.slot(S.mode, 'i32')
  const found = findEntry(b, host, mode, lookup)
  b.setSlot(S.ripPage, b.sub(rip, b.and(linear, 4095)))
  const block = b.rawLoad('i32', b.get(found), ENTRY.first, 32)
  const generation = b.select(b.eq(b.rawLoad('i32', entry, TLB.global, 32), 1), b.slot(S.globalGeneration, 'i32'), b.slot(S.generation, 'i32'))
  b.if(
    b.eq(b.and(mode, MODE.codeSize), 2),
    () => {
      const jump = jumpEntry(b, rip)
      b.rawStore(jump, JUMP_CACHE + JUMP.rip, 64, rip)
      b.rawStore(jump, JUMP_CACHE + JUMP.generation, 32, generation)
      b.rawStore(jump, JUMP_CACHE + JUMP.block, 32, block)
      enterFound(b, block, generation)
    },
    () => {
      // If the limit of CS may be on the page, the run loop checks it.
      const limit = b.rawLoad('i64', b.add(b.cpu, segment(SEGMENT.cs)), SEG.limit, 32)
      b.ifUnlikely(b.and(b.ne(limit, 0xffff_ffff), b.gtS(b.add(b.slot(S.ripPage), PAGE_REACH - 1), limit)), lookup)
      // Links to other pages are for 64-bit code, where linear addresses are RIPs.
      b.if(b.and(b.record, FAR), () => b.tail(b.rawLoad('i32', block, RECORD.handler, 32), b.cpu, block))
    },
  )
  enterFound(b, block, generation)
}

/** Computes the flags that the lazy slots describe. (code/lazy-flags.ts) */
function settleFlags(b: HandlerBuilder): void {
  const number = b.slot(S.lazyKind, 'i32')
  for (const [n, lazy] of LAZY_KINDS.entries()) {
    if (!lazy) continue
    b.if(b.eq(number, n), () => {
      const { kind, width } = lazy
      const left = b.slot(S.lazyLeft)
      const right = b.slot(S.lazyRight)
      const result = b.slot(S.lazyResult)
      const keepsCarry = kind === 'inc' || kind === 'dec'
      // The incoming carry matters only if result = left (ADC) or left = right (SBB), and is known from the result there.
      const carry = kind === 'adc' ? b.ne(right, 0) : b.ne(result, 0)
      b.arithmeticFlags(kind, width, left, keepsCarry ? b.const(1) : right, result, carry)
      if (keepsCarry) b.setFlag('cf', b.wrap(right))
    })
  }
  b.setSlot(S.lazyKind, b.i32(0))
  b.return()
}

function endShadow(b: HandlerBuilder): void {
  b.setSlot(S.shadow, b.i32(SHADOW.none))
  b.setSlot(S.mode, b.and(b.slot(S.mode, 'i32'), ~MODE.shadow))
}

const SPECIAL: Readonly<Record<Special, (b: HandlerBuilder) => void>> = {
  enterBlock: (b) => b.enterBlock(),
  // After the last instruction of a block that does not end with a branch. Follows the record's link.
  goOn: (b) => b.goOn(),
  undefinedOpcode: (b) => b.raise(VECTOR.UD),
  generalProtection: (b) => b.raise(VECTOR.GP),
  // The code here was overwritten: returns the block's unused budget, and looks the code up again.
  stale: (b) => {
    b.setSlot(S.budget, b.add(b.slot(S.budget, 'i32'), b.rawLoad('i32', b.record, RECORD.remaining, 8)))
    // The jump cache may still have this block.
    b.setSlot(S.rip, b.currentRipOfAnyMode())
    b.tailCall('find', b.cpu, b.add(b.cpu, S.zero))
  },
  // After the instruction in an interrupt shadow: pending interrupts can be delivered.
  endShadow: (b) => {
    endShadow(b)
    b.ifUnlikely(b.slot(S.attention, 'i32'), () => {
      b.setSlot(S.rip, b.currentRipOfAnyMode())
      b.setSlot(S.exit, b.i32(EXIT.attention))
      b.setSlot(S.record, b.sub(b.record, RECORD.size))
      b.return()
    })
    b.next()
  },
  // Before a branch in a shadow that has no other effect: unless an interrupt is pending, it makes no difference whether the shadow ends before or
  // after it.
  underShadow: (b) => {
    b.ifUnlikely(b.slot(S.attention, 'i32'), () => b.exit(EXIT.interpret))
    endShadow(b)
    b.next()
  },
  // In place of any other instruction in a shadow that continues elsewhere: the run loop ends the shadow after it.
  alone: (b) => b.exit(EXIT.interpret),
  // Before an instruction that crosses into the next page: checks that this is still the page it was decoded from.
  checkNextPage: (b) => {
    const next = b.add(b.add(b.slot(S.ripPage), b.slot(S.csBase)), 4096)
    const { linear, entry } = fetchAddress(b, next)
    const same = b.and(
      b.eq(tlbTag(b, entry, 'execute'), linear),
      b.eq(tlbHost(b, linear, entry), b.rawLoad('i32', b.record, RECORD.immediate, 32)),
    )
    b.ifUnlikely(b.eqz(same), () => b.exit(EXIT.crossing))
    b.next()
  },
  fpuUnavailable: (b) => b.system('fpuUnavailable'),
  // Before an instruction that the hooks trap, whose own record follows.
  trapped: (b) => b.system('trapped', b.rawLoad('i32', b.record, RECORD.immediate, 32)),
}

export const SPECIAL_NAMES = Object.keys(SPECIAL) as Special[]

export function specialHandler(name: Special, context: HandlerContext, before?: (b: HandlerBuilder) => void): Built {
  const b = new HandlerBuilder(createInstruction(rows[0]!), 64, false, context)
  before?.(b)
  SPECIAL[name](b)
  b.next()
  return b
}

/** Undefined: the row has no semantics. */
export function handlerOf(instruction: Instruction, mode: number, flagsDead: boolean, context: HandlerContext): Built | undefined {
  const meaning = semantics[instruction.row.semantics]
  if (!meaning) return undefined
  const b = new HandlerBuilder(instruction, stackSizeOf(mode), flagsDead, context)
  meaning(b, ...b.operands)
  b.next()
  return b
}

/** Numbers the shapes of a row. Instructions with the same number have the same handler. */
export function shapeKey(i: Instruction, mode: number, flagsDead: boolean): number {
  const { row } = i
  const operands = (i.operandSize >> 5) | ((i.addressSize >> 5) << 2) // 16, 32, 64 → 0, 1, 2
  const address = !i.isMemory ? 0 : i.base === BASE_RIP ? 1 : 2 + (i.base >= 0 ? 1 : 0) + (i.index >= 0 ? 2 : 0)
  const fromStack = i.isMemory && i.base === 4 ? 1 : 0 // POP's address depends on this
  const segment = i.segment === SS ? 1 : i.segment === FS || i.segment === GS ? 2 : 0
  const repeat = row.attributes.rep && i.rep ? (i.rep === 0xf3 ? 1 : 2) : 0
  const size = mode & (MODE.codeSize | MODE.stack32)
  let key = operands
  key = key * 16 + address * 2 + fromStack
  key = key * 4 + segment
  key = key * 4 + repeat
  key = key * 8 + size
  key = key * 4 + (flagsDead ? 1 : 0) + (i.lock ? 2 : 0)
  return key
}

/** For reviewers and tests: the IR of one instruction's handler. */
export const handlerIr = (instruction: Instruction, mode: number, context: HandlerContext): Body => handlerOf(instruction, mode, false, context)!.root
