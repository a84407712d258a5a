/**
 * Random system programs: a loop over actions, each of which edits tables, changes control registers, invalidates, runs or writes somewhere, raises
 * something. What an action writes differs from round to round, so that code that got hot meets new mappings. An action that faults ends; the next goes on.
 */
import { Random } from '../float/operands.ts'
import { asm, R } from './assemble.ts'
import {
  AT, CROSSING, EXTERNAL, FLAGS, gate, handlerOf, immediateOf, JUMPING, linearOf, KERNEL_STACK, randomEntry, RAM, SELECTOR, SNIPPETS, TEST_INDICES, testPage, TSS_OFFSET,
  USER_CALL, USER_STACK,
} from './world.ts'

export interface Action {
  readonly name: string
  /** Code: R15 holds the address of the action behind it. */
  readonly code: (address: bigint) => readonly number[]
}

export interface SystemProgram {
  readonly seed: number
  readonly actions: readonly Action[]
  /** Operands of each round, eight bytes each. */
  readonly operands: readonly (readonly bigint[])[]
  /** After so many instructions and events an interrupt comes from outside. */
  readonly interrupts: readonly number[]
}

export const ROUNDS = 4
const OPERANDS = 512

/** Bits of CR4 that programs switch. PAE, OSFXSR and OSXMMEXCPT stay set. */
const CR4_BASE = 0x620n
const CR4_PGE = 0x80n
const CR4_PCIDE = 0x2_0000n
const CR4_SWITCHED = [CR4_PGE, 0x10_0000n, 0x20_0000n, CR4_PCIDE, 0x800n] as const
const CR0_BASE = 0x8000_0033n

export function randomProgram(seed: number, only?: ReadonlySet<number>): SystemProgram {
  const random = new Random(seed)
  const operands: bigint[][] = Array.from({ length: ROUNDS }, () => [])
  /** One operand a round, in the register: offset from R13. */
  const operand = (make: (round: number) => bigint): number => {
    for (let round = 0; round < ROUNDS; round++) operands[round]!.push(make(round))
    return (operands[0]!.length - 1) * 8
  }
  /** Pages that this program uses: few, so that it meets them again. */
  const pages = Array.from({ length: 3 }, () => testPage(random))
  const context: Context = { random, operand, page: () => pages[random.below(pages.length)]! }
  const actions: Action[] = []
  const count = 8 + random.below(24)
  for (let n = 0; n < count; n++) {
    const action = randomAction(context)
    if (!only || only.has(n)) actions.push(action)
  }
  const interrupts = random.below(3) ? [] : Array.from({ length: 1 + random.below(6) }, () => 20 + random.below(600)).toSorted((a, b) => a - b)
  return { seed, actions, operands, interrupts }
}

interface Context {
  readonly random: Random
  readonly operand: (make: (round: number) => bigint) => number
  readonly page: () => bigint
}

function randomAction(c: Context): Action {
  let at = c.random.below(TOTAL)
  for (const [weight, make] of ACTIONS) {
    at -= weight
    if (at < 0) return make(c)
  }
  throw new Error('weights')
}

/** An address on a page that programs aim at. */
function somewhere({ random, page }: Context): bigint {
  const offset = random.below(6) === 0 ? 4089 + random.below(7) : random.below(3) ? random.below(500) * 8 : SNIPPETS[random.below(SNIPPETS.length)]! + random.below(7)
  return page() + BigInt(offset)
}
const snippet = ({ random, page }: Context): bigint => page() + BigInt(SNIPPETS[random.below(SNIPPETS.length)]!)

const plain = (name: string, ...code: readonly (readonly number[])[]): Action => ({ name, code: () => code.flat() })
const show = (linear: bigint): string => `0x${linear.toString(16)}`

/** Physical address of an entry that a walk of that page may pass. */
function entryAddress({ random }: Context, linear: bigint, level: 1 | 2 | 3 | 4): bigint {
  const tables = level === 4 ? AT.roots : level === 3 ? AT.pdpts : level === 2 ? AT.pds : AT.pts
  const index = (linear >> BigInt(12 + 9 * (level - 1))) & 0x1ffn
  const known = (TEST_INDICES[level] as readonly number[]).includes(Number(index))
  return linearOf(tables[random.below(tables.length)]!) + 8n * (known ? index : 0n)
}

function edit(c: Context): Action {
  const { random } = c
  const linear = c.page()
  const level = (1 + Math.min(random.below(5), 3)) as 1 | 2 | 3 | 4
  const address = entryAddress(c, linear, random.below(2) ? 1 : level)
  const chosen = address >= linearOf(AT.pts[0]!) ? 1 : level
  const from = c.operand(() => randomEntry(random, chosen))
  const write = [...asm.load(R.rax, R.r13, from), ...asm.movImmediate(R.rbx, address), ...asm.store(R.rax, R.rbx)]
  const [name, after] = invalidation(c, linear)
  return plain(`entry of level ${chosen} at ${show(address)}${name}`, write, after)
}
/** Changes one bit of an entry that is there. */
function change(c: Context): Action {
  const linear = c.page()
  const level = (1 + Math.min(c.random.below(6), 3)) as 1 | 2 | 3 | 4
  const address = entryAddress(c, linear, level)
  const bits = [FLAGS.W, FLAGS.U, FLAGS.P, FLAGS.A, FLAGS.D, FLAGS.G, FLAGS.NX]
  const bit = bits[c.random.below(bits.length)]!
  const [name, after] = invalidation(c, linear)
  return plain(
    `level ${level} at ${show(address)} ^ ${show(bit)}${name}`,
    asm.movImmediate(R.rbx, address), asm.load(R.rax, R.rbx), asm.movImmediate(R.rcx, bit), XOR_RAX_RCX, asm.store(R.rax, R.rbx), after,
  )
}

function invalidation(c: Context, linear: bigint): [string, number[]] {
  const { random } = c
  switch (random.below(8)) {
    case 0: case 1: case 2:
      return [', INVLPG', [...asm.movImmediate(R.rbx, linear), ...asm.invlpg(R.rbx)]]
    case 3:
      return [', MOV CR3', [...asm.fromControl(3, R.rax), ...asm.toControl(3, R.rax)]]
    case 4:
      return [', CR4.PGE', toggleTwice(CR4_PGE)]
    case 5:
      return invpcid(c, linear)
    default:
      return ['', []]
  }
}
const toggleTwice = (bit: bigint): number[] => [...toggle(4, bit), ...XOR_RAX_RCX, ...asm.toControl(4, R.rax)]
/** PCID 0 is the current one, mostly. */
function invpcid({ random }: Context, linear: bigint, type = random.below(4)): [string, number[]] {
  const pcid = BigInt(random.below(3) ? 0 : random.below(3))
  return [`, INVPCID ${type} of ${pcid}`, invpcidOf(linear, type, pcid)]
}
/** The descriptor lies on the kernel's stack. */
const invpcidOf = (linear: bigint, type: number, pcid: bigint): number[] => [
  ...asm.movImmediate(R.rax, linear), ...asm.push(R.rax), ...asm.movImmediate(R.rax, pcid), ...asm.push(R.rax), ...asm.movImmediate32(R.rax, type), ...asm.invpcid(R.rax, R.rsp),
  ...asm.addImmediate(R.rsp, 16),
]

function access(c: Context): Action {
  const linear = somewhere(c)
  const kinds: readonly [string, (reg: number, base: number, offset?: number) => number[]][] = [['load', asm.load], ['store', asm.store], ['add to', asm.addTo], ['xchg', asm.xchg], ['add from', asm.addFrom]]
  const [name, make] = kinds[c.random.below(kinds.length)]!
  const repeat = 1 + c.random.below(2)
  return plain(`${name} ${show(linear)}`, asm.movImmediate(R.rdi, linear), ...Array.from({ length: repeat }, () => make(R.rdx, R.rdi)))
}
function call(c: Context): Action {
  const linear = snippet(c)
  return plain(`call ${show(linear)}`, asm.movImmediate(R.rdi, linear), asm.call(R.rdi))
}
/** The same place used twice with something in between: what translations, decoded and linked code must not outlive. */
function callAround(c: Context): Action {
  const linear = snippet(c)
  // Of code that goes on in the next page half the time that one changes.
  const crosses = (linear & 0xfffn) === BigInt(CROSSING)
  const page = BigInt.asUintN(64, (linear & ~0xfffn) + (crosses && c.random.below(2) ? 0x1000n : 0n))
  const address = entryAddress(c, page, 1)
  const from = c.operand(() => randomEntry(c.random, 1))
  const [name, invalidate] = c.random.below(3) ? [', INVLPG', [...asm.movImmediate(R.rbx, page), ...asm.invlpg(R.rbx)]] as const : invpcid(c, page)
  const touch = c.random.below(2) ? asm.call(R.rdi) : asm.load(R.rdx, R.rdi)
  return plain(
    `use of ${show(linear)}, entry at ${show(address)}${name}, use again`,
    asm.movImmediate(R.rdi, linear), touch, asm.load(R.rax, R.r13, from), asm.movImmediate(R.rbx, address), asm.store(R.rax, R.rbx), [...invalidate], touch,
  )
}
/** A use that may fault, an entry on its way written without an invalidation, the same use: a page fault leaves nothing cached of its address. */
function mapAfterFault(c: Context): Action {
  const linear = snippet(c)
  const level = (1 + c.random.below(4)) as 1 | 2 | 3 | 4
  const address = entryAddress(c, pageOf(linear), level)
  const from = c.operand(() => randomEntry(c.random, level))
  const use = useOf(c, linear)
  const write = [...asm.load(R.rax, R.r13, from), ...asm.movImmediate(R.rbx, address), ...asm.store(R.rax, R.rbx)]
  return {
    name: `use of ${show(linear)}, entry of level ${level} at ${show(address)}, use again`,
    code: (start) => {
      const on = start + BigInt(10 + use.length)
      const tail = [...asm.movImmediate(R.rsp, KERNEL_STACK), ...write]
      return [...asm.movImmediate(R.r15, on), ...use, ...tail, ...asm.movImmediate(R.r15, on + BigInt(tail.length + 10 + use.length)), ...use]
    },
  }
}
/** One page of code at two addresses: what lies behind it differs. */
function callAliases(c: Context): Action {
  const { random } = c
  const [one, other] = [c.page(), c.page()]
  const offset = BigInt(random.below(3) ? CROSSING : SNIPPETS[random.below(SNIPPETS.length)]!)
  const entry = dataEntry(c)
  const behind = [one, other].flatMap((linear) => (random.below(2) ? mapTo(BigInt.asUintN(64, linear + 0x1000n), dataEntry(c)) : []))
  const maps = [one, other].flatMap((linear) => mapTo(linear, entry))
  const calls = [one, one, other, other].flatMap((linear) => [...asm.movImmediate(R.rdi, linear + offset), ...asm.call(R.rdi)])
  return plain(`one page at ${show(one)} and ${show(other)}, called at +${show(offset)}`, behind, maps, calls)
}
/** New bytes in a snippet, by the kernel's own mapping. */
function modify(c: Context): Action {
  const page = AT.data + c.random.below(AT.dataPages)
  const target = linearOf(page) + BigInt(immediateByte(c, SNIPPETS[c.random.below(SNIPPETS.length)]!))
  const from = c.operand(() => BigInt(c.random.below(256)))
  const linear = snippet(c)
  return plain(`byte at ${show(target)}, call ${show(linear)}`, storeByte(from, target), asm.movImmediate(R.rdi, linear), asm.call(R.rdi))
}
/** Where a snippet has a byte that may be anything, in its page or the page behind. */
function immediateByte({ random }: Context, offset: number): number {
  const bytes = immediateOf(offset)
  return offset + bytes[random.below(bytes.length)]!
}
const storeByte = (from: number, target: bigint): number[] => [...asm.load(R.rax, R.r13, from), ...asm.movImmediate(R.rbx, target), 0x88, 0x03]

/**
 * Code called often enough to be compiled, changed somewhere and called again: a region may be compiled meanwhile. Of what goes on behind its first block,
 * in its page or the next, it is the other part that changes.
 */
function modifyBetweenCalls(c: Context): Action {
  const { random } = c
  const linear = c.page()
  const [page, behind] = [AT.data + random.below(AT.dataPages), AT.data + random.below(AT.dataPages)]
  const crosses = random.below(2) === 0
  const offset = crosses ? CROSSING : JUMPING
  const next = BigInt.asUintN(64, linear + 0x1000n)
  const maps = [[linear, page], [next, behind]] as const
  const target = crosses ? linearOf(behind) + BigInt(1 + random.below(7)) : linearOf(page) + BigInt(immediateByte(c, SNIPPETS[1 + random.below(2)]!))
  const wait = (): number[] => [...asm.movImmediate32(R.rcx, 1 + random.below(90)), ...asm.decrement(R.rcx), ...asm.jumpNotZero(-9)]
  return plain(
    `calls of ${show(linear + BigInt(offset))} in page ${page}, byte at ${show(target)} in between`,
    maps.flatMap(([at, frame]) => mapTo(at, asm.movImmediate(R.rax, linearOf(frame) | FLAGS.P | FLAGS.W | FLAGS.A))),
    asm.movImmediate(R.rdi, BigInt.asUintN(64, linear + BigInt(offset))), asm.call(R.rdi), asm.call(R.rdi), asm.call(R.rdi), wait(),
    storeByte(c.operand(() => BigInt(random.below(256))), target), asm.call(R.rdi), wait(), asm.call(R.rdi),
  )
}
const pageOf = (linear: bigint): bigint => BigInt.asUintN(64, linear & ~0xfffn)
/** A call of an address, or a load from there. */
const useOf = (c: Context, linear: bigint): number[] => [...asm.movImmediate(R.rdi, linear), ...(c.random.below(2) ? asm.call(R.rdi) : asm.load(R.rdx, R.rdi))]
/** An entry for a page of data into RAX, another one each round. */
const dataEntry = (c: Context, more = 0n): number[] =>
  asm.load(R.rax, R.r13, c.operand(() => linearOf(AT.data + c.random.below(AT.dataPages)) | FLAGS.P | FLAGS.W | FLAGS.A | more))
/** One page mapped to what `value` puts in RAX, in whatever table its walk ends. */
const mapTo = (linear: bigint, value: readonly number[]): number[] => [...writeLeaf(linear, value), ...asm.movImmediate(R.rbx, linear), ...asm.invlpg(R.rbx)]
/** The same without an invalidation. */
function writeLeaf(linear: bigint, value: readonly number[]): number[] {
  const index = 8n * ((linear >> 12n) & 0x1ffn)
  return [...value, ...AT.pts.flatMap((table) => [...asm.movImmediate(R.rbx, linearOf(table) + index), ...asm.store(R.rax, R.rbx)])]
}

/** Two PCIDs of the same tables, everything invalidated; `inContext` goes to one of them, and keeps what is cached of it unless it is the first time; `leave` to PCID 0. */
function twoContexts(c: Context): { enter: readonly number[]; inContext: (pcid: 1 | 2, keeps?: boolean) => number[]; leave: readonly number[] } {
  const root = linearOf(AT.roots[c.random.below(AT.roots.length)]!)
  const set = (n: 3 | 4, value: bigint): number[] => [...asm.movImmediate(R.rax, value), ...asm.toControl(n, R.rax)]
  return {
    enter: [...set(3, root), ...set(4, CR4_BASE | CR4_PCIDE), ...set(4, CR4_BASE | CR4_PCIDE | CR4_PGE)],
    inContext: (pcid, keeps = true) => set(3, root | BigInt(pcid) | (keeps ? 1n << 63n : 0n)),
    leave: set(3, root),
  }
}
/** A global page used in one PCID, its entry changed and invalidated in another, used in the first again: INVLPG invalidates global pages of all. */
function globalInContexts(c: Context): Action {
  const linear = snippet(c)
  const page = pageOf(linear)
  const { enter, inContext, leave } = twoContexts(c)
  const use = useOf(c, linear)
  return plain(`use of ${show(linear)} in one context, another entry in another, use again`, enter, mapTo(page, dataEntry(c, FLAGS.G)), inContext(1, false), use, inContext(2, false), mapTo(page, dataEntry(c, FLAGS.G)), inContext(1), use, leave)
}
/** A page used in one PCID, its entry changed, INVPCID of that PCID, there or in another; used in the first again. */
function invalidateContext(c: Context): Action {
  const linear = snippet(c)
  const page = pageOf(linear)
  const { enter, inContext, leave } = twoContexts(c)
  const use = useOf(c, linear)
  const type = c.random.below(4)
  const [away, back] = c.random.below(2) ? [inContext(2, false), inContext(1)] : [[], []]
  return plain(
    `use of ${show(linear)} in a context, another entry, INVPCID ${type}${away.length ? ' in another' : ''}, use again`,
    enter, mapTo(page, dataEntry(c)), inContext(1, false), use, away, writeLeaf(page, dataEntry(c)), invpcidOf(page, type, 1n), back, use, leave,
  )
}
/** Bytes of a page written in one PCID, called in another, written and called in the first again: it may have cached that they can be written. */
function modifyInContexts(c: Context): Action {
  const page = AT.data + c.random.below(AT.dataPages)
  const offset = SNIPPETS[c.random.below(SNIPPETS.length - 1)]!
  const target = linearOf(page) + BigInt(immediateByte(c, offset))
  const { enter, inContext, leave } = twoContexts(c)
  const write = (): number[] => storeByte(c.operand(() => BigInt(c.random.below(256))), target)
  const call = [...asm.movImmediate(R.rdi, linearOf(page) + BigInt(offset)), ...asm.call(R.rdi)]
  return plain(`byte at ${show(target)} in one context, call in another, the byte again`, enter, inContext(1, false), write(), write(), inContext(2, false), call, inContext(1), write(), call, leave)
}
/** A large page where an address is, and another address in it. */
function largePage(c: Context): { linear: bigint; other: bigint; write: (value: readonly number[]) => number[] } {
  const linear = c.page()
  const other = (linear & ~0x1f_ffffn) | (BigInt(TEST_INDICES[1][c.random.below(TEST_INDICES[1].length)]!) << 12n)
  const at = 8n * ((linear >> 21n) & 0x1ffn)
  return { linear, other, write: (value) => [...value, ...AT.pds.flatMap((table) => [...asm.movImmediate(R.rbx, linearOf(table) + at), ...asm.store(R.rax, R.rbx)])] }
}
const loadFrom = (address: bigint): number[] => [...asm.movImmediate(R.rdi, address), ...asm.load(R.rdx, R.rdi)]
/** Two parts of a large page used, a fault at one of them, another entry in its place, the other one used: the fault invalidated the page as a whole. */
function largePageAfterFault(c: Context): Action {
  const { linear, other, write } = largePage(c)
  const from = c.operand(() => randomEntry(c.random, 2))
  const set = [...asm.movImmediate(R.rax, CR0_BASE | 0x1_0000n), ...asm.toControl(0, R.rax), ...write(asm.movImmediate(R.rax, FLAGS.PS | FLAGS.P | FLAGS.A)), ...toggleTwice(CR4_PGE)]
  const fault = [...loadFrom(linear), ...loadFrom(other), ...asm.store(R.rdi, R.rdi)]
  const tail = [...asm.movImmediate(R.rsp, KERNEL_STACK), ...write(asm.load(R.rax, R.r13, from))]
  const again = loadFrom(linear)
  return {
    name: `loads at ${show(linear)} and ${show(other)} in a large page, a store there that faults, another entry, the first load again`,
    code: (start) => {
      const on = start + BigInt(10 + set.length + fault.length)
      return [...asm.movImmediate(R.r15, on), ...set, ...fault, ...tail, ...asm.movImmediate(R.r15, on + BigInt(tail.length + 10 + again.length)), ...again]
    },
  }
}
/** Two parts of a large page used, one invalidated by another PCID and by its own, the other one used: INVLPG invalidates the page as a whole. */
function largePageInContexts(c: Context): Action {
  const { linear, other, write } = largePage(c)
  const { enter, inContext, leave } = twoContexts(c)
  const from = c.operand(() => randomEntry(c.random, 2))
  const invalidate = [...asm.movImmediate(R.rbx, linear), ...asm.invlpg(R.rbx)]
  return plain(
    `loads at ${show(linear)} and ${show(other)} in a large page, INVLPG in another context, another entry, INVLPG, the second load again`,
    write(asm.movImmediate(R.rax, FLAGS.PS | FLAGS.P | FLAGS.A)), enter, inContext(1, false), loadFrom(linear), loadFrom(other), inContext(2, false), invalidate,
    inContext(1), write(asm.load(R.rax, R.r13, from)), invalidate, loadFrom(other), leave,
  )
}

/**
 * The same use before and after one bit changes by which rights are judged, the translation being cached: CR4.SMEP, CR4.SMAP, CR0.WP or EFER.NXE. Half of
 * these use a page of the user's that is always there.
 */
function useAroundSwitch(c: Context): Action {
  const { random } = c
  const linear = random.below(2) ? snippet(c) : linearOf(AT.userSnippets) + BigInt(SNIPPETS[random.below(SNIPPETS.length - 1)]!)
  const [use, code] = ([['call', asm.call(R.rdi)], ['load', asm.load(R.rdx, R.rdi, 0x40)], ['store', asm.store(R.rdi, R.rdi, 0x20)]] as const)[random.below(3)]!
  const [name, change] = SWITCHES[random.below(SWITCHES.length)]!
  return plain(`${use} at ${show(linear)}, ${name} changes, ${use} again`, random.below(2) ? asm.clac() : [], asm.movImmediate(R.rdi, linear), code, change, code, random.below(2) ? [] : [...change, ...code])
}
const EFER = 0xc000_0080n
const toggle = (register: 0 | 4, bit: bigint): number[] => [...asm.fromControl(register, R.rax), ...asm.movImmediate(R.rcx, bit), ...XOR_RAX_RCX, ...asm.toControl(register, R.rax)]
const XOR_RAX_RCX = [0x48, 0x31, 0xc8] as const
const SWITCHES: readonly (readonly [string, readonly number[]])[] = [
  ['CR4.SMEP', toggle(4, 0x10_0000n)], ['CR4.SMAP', toggle(4, 0x20_0000n)], ['CR0.WP', toggle(0, 0x1_0000n)],
  ['EFER.NXE', [...asm.movImmediate(R.rcx, EFER), ...asm.rdmsr(), ...asm.movImmediate(R.rcx, 0x800n), ...XOR_RAX_RCX, ...asm.movImmediate(R.rcx, EFER), ...asm.wrmsr()]],
]

function control0(c: Context): Action {
  const from = c.operand(() => CR0_BASE | (c.random.below(2) ? 0x1_0000n : 0n))
  return plain('MOV CR0 (WP)', asm.load(R.rax, R.r13, from), asm.toControl(0, R.rax))
}
function control4(c: Context): Action {
  const from = c.operand(() => {
    const value = CR4_SWITCHED.reduce((sum, bit) => sum | (c.random.below(2) ? bit : 0n), CR4_BASE)
    return c.random.below(20) ? value : value | 0x1000n
  })
  return plain('MOV CR4', asm.load(R.rax, R.r13, from), asm.toControl(4, R.rax))
}
/** Another root, with a PCID and bit 63 now and then. */
function control3(c: Context): Action {
  const from = c.operand(() => {
    const root = linearOf(AT.roots[c.random.below(AT.roots.length)]!)
    return root | BigInt(c.random.below(3)) | (c.random.below(3) === 0 ? 1n << 63n : 0n)
  })
  return plain('MOV CR3', asm.load(R.rax, R.r13, from), asm.toControl(3, R.rax))
}
function efer(c: Context): Action {
  const from = c.operand(() => 0x501n | (c.random.below(2) ? 0x800n : 0n))
  return plain('WRMSR EFER (NXE)', asm.load(R.rax, R.r13, from), asm.movImmediate(R.rcx, EFER), asm.movImmediate32(R.rdx, 0), asm.wrmsr())
}
const flush = (c: Context): Action => {
  const [name, code] = invalidation(c, c.page())
  return plain(`flush${name}`, code)
}

/** To CPL 3 by IRETQ: what runs there ends by INT, by SYSCALL or by a fault. */
function user(c: Context): Action {
  const { random } = c
  const linear = random.below(3) ? somewhere(c) : snippet(c)
  const runs = random.below(3)
  const body: number[] =
    runs === 0 ? [...asm.movImmediate(R.rdi, linear), ...asm.load(R.rdx, R.rdi)]
    : runs === 1 ? [...asm.movImmediate(R.rdi, linear), ...asm.addTo(R.rdx, R.rdi)]
    : [...asm.movImmediate(R.rdi, linear), ...asm.call(R.rdi)]
  const end = random.below(3) ? asm.interrupt(USER_CALL) : random.below(2) ? asm.syscall() : ODD_ENDS[random.below(ODD_ENDS.length)]!
  const code = [...body, ...end]
  const direct = random.below(5) === 0
  const flags = 0x3002n | (random.below(2) ? 0x200n : 0n) | (random.below(4) ? 0n : 0x4_0000n)
  const odd = random.below(10) === 0
  const cs = odd ? ODD_SELECTORS[random.below(ODD_SELECTORS.length)]! : SELECTOR.userCode
  const ss = odd && random.below(2) ? ODD_SELECTORS[random.below(ODD_SELECTORS.length)]! : SELECTOR.userData
  return {
    name: `user ${['loads', 'adds to', 'calls'][runs]} ${show(linear)}${direct ? ', entered there' : ''}${odd ? ` with CS ${cs.toString(16)}, SS ${ss.toString(16)}` : ''}`,
    code: () => [
      // The code is copied to the user's page first.
      ...[...pad(code)].flatMap((word, n) => [...asm.movImmediate(R.rax, word), ...asm.movImmediate(R.rbx, linearOf(AT.user) + BigInt(8 * n)), ...asm.store(R.rax, R.rbx)]),
      ...[BigInt(ss), USER_STACK, flags, BigInt(cs), direct ? linear : linearOf(AT.user)].flatMap((word) => [...asm.movImmediate(R.rax, word), ...asm.push(R.rax)]),
      ...asm.iretq(),
    ],
  }
}
/** A conforming segment, one of 32-bit code and the like: IRETQ judges them. Those that lead to code that is not of 64 bits are left out. */
const ODD_SELECTORS = [0, 3, SELECTOR.data, SELECTOR.userData, SELECTOR.absent | 3, SELECTOR.dpl1, SELECTOR.readOnly | 3, SELECTOR.system | 3, 0x83, 0xfffb, SELECTOR.dpl3ReadOnly] as const
const ODD_ENDS = [asm.undefined2(), asm.hlt(), asm.cli(), asm.wrmsr(), asm.divideByZero(), asm.interrupt(14), asm.interrupt(0x81), [0xcc]] as const

function* pad(code: readonly number[]): Generator<bigint> {
  for (let n = 0; n < code.length; n += 8) {
    let word = 0n
    for (let i = 0; i < 8; i++) word |= BigInt(code[n + i] ?? 0x90) << BigInt(8 * i)
    yield word
  }
}

/** A gate, or the stack that one uses, is spoilt; something raises; all is put back. */
function spoil(c: Context): Action {
  const { random } = c
  const raised: readonly [string, number, readonly number[]][] = [
    ['INT 0x21', 13, asm.interrupt(0x21)], ['UD2', 6, asm.undefined2()], ['DIV', 0, asm.divideByZero()], ['INT3', 3, [0xcc]],
    ['page fault', 14, [...asm.movImmediate(R.rdi, 0n), ...asm.load(R.rdx, R.rdi)]], ['INT 0x80', USER_CALL, asm.interrupt(USER_CALL)],
    ['segment', 11, [...asm.movImmediate32(R.rax, SELECTOR.absent), ...asm.toSegment(0, R.rax)]],
  ]
  const [name, vector, code] = raised[random.below(raised.length)]!
  const spoilt = [vector, ...(random.below(2) ? [[13, 14, 11, 10, 8][random.below(5)]!] : [])]
  const writes = spoilt.flatMap((gateOf) => {
    const handler = handlerOf(gateOf)
    const bad: Parameters<typeof gate>[0][] = [
      { handler, present: false }, { handler, type: 12 }, { handler, selector: 0 }, { handler, selector: 0xfff8 }, { handler, selector: SELECTOR.data }, { handler, selector: SELECTOR.userCode },
      { handler, selector: SELECTOR.absent }, { handler, ist: 2 + random.below(6) }, { handler: 1n << 50n }, { handler, type: 15, dpl: 3 }, { handler, ist: 1 }, { handler, selector: SELECTOR.conforming },
      { handler: c.page() },
    ]
    const [low, high] = gate(bad[random.below(bad.length)]!)
    const at = linearOf(AT.idt) + BigInt(16 * gateOf)
    return [...asm.movImmediate(R.rax, low), ...asm.movImmediate(R.rbx, at), ...asm.store(R.rax, R.rbx), ...asm.movImmediate(R.rax, high), ...asm.store(R.rax, R.rbx, 8)]
  })
  // Stacks by number 2 to 7 lead nowhere, not canonically, or to a page that programs edit.
  const stack = [0n, 1n << 50n, c.page() + 64n, c.page() + 8n][random.below(4)]!
  const stacks = [...asm.movImmediate(R.rax, stack), ...asm.movImmediate(R.rbx, linearOf(AT.tss) + BigInt(TSS_OFFSET + 0x2c)), ...Array.from({ length: 6 }, (_, n) => asm.store(R.rax, R.rbx, 8 * n)).flat()]
  return {
    name: `${name} with gates ${spoilt.join(' and ')} spoilt, stacks ${show(stack)}`,
    code: (address) => {
      // A fault goes on behind the raising code, where the gates are put back.
      const restore = spoilt.flatMap((gateOf) => {
        const [low, high] = gate({ handler: handlerOf(gateOf), dpl: gateOf === USER_CALL || gateOf === 3 ? 3 : 0, ist: gateOf === 8 || gateOf === 2 ? 1 : 0, type: gateOf === 3 ? 15 : 14 })
        const at = linearOf(AT.idt) + BigInt(16 * gateOf)
        return [...asm.movImmediate(R.rax, low), ...asm.movImmediate(R.rbx, at), ...asm.store(R.rax, R.rbx), ...asm.movImmediate(R.rax, high), ...asm.store(R.rax, R.rbx, 8)]
      })
      const head = [...writes, ...stacks]
      const on = address + BigInt(10 + head.length + code.length)
      return [...asm.movImmediate(R.r15, on), ...head, ...code, ...restore]
    },
  }
}

function segment(c: Context): Action {
  const all = [0, 3, SELECTOR.data, SELECTOR.userData, SELECTOR.absent, SELECTOR.dpl1, SELECTOR.readOnly, SELECTOR.executeOnly, SELECTOR.conforming, SELECTOR.fresh, SELECTOR.system, SELECTOR.code, 0xfff8, 0x14]
  const selector = all[c.random.below(all.length)]!
  const n = [0, 2, 3, 4, 5][c.random.below(5)]!
  return plain(`segment ${n} = ${selector.toString(16)}`, asm.movImmediate32(R.rax, selector), asm.toSegment(n, R.rax))
}
function flags(c: Context): Action {
  const which = c.random.below(5)
  return plain(['STAC', 'CLAC', 'STI', 'CLI', 'STI; MOV SS'][which]!, [asm.stac(), asm.clac(), asm.sti(), asm.cli(), [...asm.movImmediate32(R.rax, SELECTOR.data), ...asm.sti(), ...asm.toSegment(2, R.rax), ...asm.nop()]][which]!)
}
function raise(c: Context): Action {
  const kinds: readonly (readonly [string, readonly number[]])[] = [
    ['UD2', asm.undefined2()], ['DIV by 0', asm.divideByZero()], ['INT 0x21', asm.interrupt(0x21)], ['INT3', [0xcc]], ['INT 0x80', asm.interrupt(USER_CALL)], ['SWAPGS', asm.swapgs()],
    ['load from a non-canonical address', [...asm.movImmediate(R.rdi, 1n << 50n), ...asm.load(R.rdx, R.rdi)]],
    ['push to a non-canonical address', [...asm.movImmediate(R.rsp, 1n << 50n), ...asm.push(R.rax)]],
    ['jump to a non-canonical address', [...asm.movImmediate(R.rdi, 1n << 50n), ...asm.jump(R.rdi)]],
    ['WRMSR of none', [...asm.movImmediate32(R.rcx, 0x123456), ...asm.wrmsr()]],
  ]
  const [name, code] = kinds[c.random.below(kinds.length)]!
  return plain(name, [...code])
}

/** TF from POPF on: one instruction is stepped, or none. */
function singleStep(c: Context): Action {
  const { random } = c
  const linear = somewhere(c)
  const stepped: readonly (readonly [string, readonly number[]])[] = [
    ['NOP', asm.nop()], ['load', asm.load(R.rdx, R.rdi)], ['add', asm.addTo(R.rdx, R.rdi)], ['call', asm.call(R.rdi)], ['jump', asm.jump(R.rdi)], ['INT 0x21', asm.interrupt(0x21)], ['INT3', [0xcc]], ['UD2', asm.undefined2()],
    ['MOV SS', [...asm.toSegment(2, R.rcx), ...asm.nop(), ...asm.nop()]], ['MOV SS; INT3', [...asm.toSegment(2, R.rcx), 0xcc]], ['STI', [...asm.sti(), ...asm.nop()]], ['CLI', asm.cli()], ['PUSHF; POPF', [0x9c, 0x9d, ...asm.nop()]],
    ['MOV CR3', [...asm.toControl(3, R.rbx), ...asm.nop()]], ['MOV CR4', asm.toControl(4, R.rbp)],
  ]
  const [name, code] = stepped[random.below(stepped.length)]!
  const flags = 0x102n | (random.below(2) ? 0x200n : 0n) | (random.below(4) ? 0n : 0x4_0000n)
  return plain(
    `step over ${name} at ${show(linear)}, flags ${show(flags)}`,
    asm.movImmediate(R.rdi, linear), asm.movImmediate32(R.rcx, SELECTOR.data), asm.fromControl(3, R.rbx), asm.fromControl(4, R.rbp), asm.movImmediate(R.rax, flags), asm.push(R.rax), [0x9d], [...code],
  )
}

const ACTIONS: readonly (readonly [number, (c: Context) => Action])[] = [
  [14, edit], [6, change], [16, access], [10, call], [8, callAround], [3, callAliases], [5, mapAfterFault], [5, modify], [4, modifyBetweenCalls], [5, useAroundSwitch], [2, globalInContexts], [2, invalidateContext], [2, modifyInContexts], [2, largePageAfterFault], [2, largePageInContexts], [2, control0], [4, control4], [5, control3], [2, efer], [5, flush], [9, user], [5, spoil], [4, segment],
  [4, flags], [3, raise], [5, singleStep],
]
const TOTAL = ACTIONS.reduce((sum, [weight]) => sum + weight, 0)

/** Puts code and operands in place. The first instruction is at the start of the code's pages. Returns where actions begin. */
export function layOut(program: SystemProgram, ram: Uint8Array): ReadonlySet<bigint> {
  const boundaries = new Set<bigint>()
  const view = new DataView(ram.buffer, ram.byteOffset)
  const start = linearOf(AT.code)
  const bytes: number[] = [...asm.movImmediate(R.r12, linearOf(AT.log)), ...asm.movImmediate(R.r13, linearOf(AT.operands)), ...asm.movImmediate32(R.r14, ROUNDS)]
  const loop = bytes.length
  for (const { code } of program.actions) {
    const at = start + BigInt(bytes.length + 20)
    const body = code(at)
    boundaries.add(at - 20n)
    bytes.push(...asm.movImmediate(R.r15, at + BigInt(body.length)), ...asm.movImmediate(R.rsp, KERNEL_STACK), ...body)
  }
  bytes.push(...asm.movImmediate(R.rsp, KERNEL_STACK), ...asm.addImmediate(R.r13, OPERANDS), ...asm.decrement(R.r14))
  bytes.push(...asm.jumpNotZero(loop - bytes.length - 6), ...asm.hlt())
  if (bytes.length > (AT.handlers - AT.code) * 4096) throw new Error(`a program of ${bytes.length} bytes is too long`)
  ram.set(bytes, AT.code * 4096)
  for (const [round, values] of program.operands.entries())
    for (const [n, value] of values.entries()) view.setBigUint64(AT.operands * 4096 + round * OPERANDS + 8 * n, BigInt.asUintN(64, value), true)
  return boundaries
}

export const ENTRY = linearOf(AT.code)
export { EXTERNAL, RAM }
