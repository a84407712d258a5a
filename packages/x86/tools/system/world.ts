/**
 * The machine that system programs run on: 384 KiB of memory in which everything lies, as every program finds it. Linear addresses below 512 GiB are the
 * kernel's, one to one, and stay as they are; programs edit what is above. (SDM Vol. 3A, "4-Level Paging", "64-Bit Mode IDT", "Task-State Segment")
 */
import { Random } from '../float/operands.ts'
import { asm, R } from './assemble.ts'

const PAGE = 4096
export const PAGES = 96
export const RAM = PAGES * PAGE

/** Pages by what lies there; physical, and linear for the kernel. */
export const AT = {
  roots: [1, 2, 3], kernelPdpt: 4, kernelPd: 5, kernelPt: 6,
  pdpts: [8, 9, 10], pds: [11, 12, 13, 14], pts: [16, 17, 18, 19, 20, 21],
  data: 32, dataPages: 16,
  code: 64, handlers: 67, idt: 70, gdt: 71, tss: 71, stack: 73, interruptStack: 75, user: 76, userSnippets: 77, userStack: 78, operands: 80, log: 84,
} as const
export const linearOf = (page: number): bigint => BigInt(page * PAGE)

export const TSS_OFFSET = 0x800
export const KERNEL_STACK = linearOf(AT.stack + 1)
const INTERRUPT_STACK = linearOf(AT.interruptStack + 1)
export const USER_STACK = linearOf(AT.userStack + 1) - 64n
export const SYSCALL_ENTRY = linearOf(AT.handlers + 2)

/** Vectors: of the user's way back, and of interrupts from outside. */
export const USER_CALL = 0x80
export const EXTERNAL = 0x40
/** Gates up to this one are there. */
const LAST_VECTOR = 0x80

export const SELECTOR = {
  code: 0x08, data: 0x10, userCode32: 0x18, userData: 0x23, userCode: 0x2b, tss: 0x30,
  /** Odd ones: not present, DPL 1, read-only data, execute-only code, conforming code, without accessed, a system descriptor. */
  absent: 0x40, dpl1: 0x49, readOnly: 0x50, executeOnly: 0x58, conforming: 0x60, fresh: 0x68, system: 0x70, dpl3ReadOnly: 0x7b,
} as const

const P = 1n, W = 2n, U = 4n, G = 0x100n
export const FLAGS = { P, W, U, A: 0x20n, D: 0x40n, PS: 0x80n, G, NX: 1n << 63n } as const

/** Word of a descriptor's rights (bits 47:40) and flags (55:52) with base 0 and limit 4 GiB. */
const descriptor = (rights: number, flags: number): bigint => 0x000f_0000_0000_ffffn | (BigInt(rights) << 40n) | (BigInt(flags) << 52n)

const DESCRIPTORS: Readonly<Record<number, bigint>> = {
  [SELECTOR.code]: descriptor(0x9b, 0xa), [SELECTOR.data]: descriptor(0x93, 0xc), [SELECTOR.userCode32]: descriptor(0xfb, 0xc),
  [SELECTOR.userData & ~3]: descriptor(0xf3, 0xc), [SELECTOR.userCode & ~3]: descriptor(0xfb, 0xa),
  [SELECTOR.absent]: descriptor(0x13, 0xc), [SELECTOR.dpl1 & ~3]: descriptor(0xb3, 0xc), [SELECTOR.readOnly]: descriptor(0x91, 0xc),
  [SELECTOR.executeOnly]: descriptor(0x99, 0xa), [SELECTOR.conforming]: descriptor(0x9f, 0xa), [SELECTOR.fresh]: descriptor(0x92, 0xc),
  [SELECTOR.system]: descriptor(0x89, 0), [SELECTOR.dpl3ReadOnly & ~3]: descriptor(0xf1, 0xc),
}

/** Memory as every program finds it, apart from its own code and operands. `random` decides what is in the tables that programs edit. */
export function buildWorld(ram: Uint8Array, random: Random): void {
  ram.set((template ??= buildTemplate()))
  const view = new DataView(ram.buffer, ram.byteOffset)
  for (const [tables, level] of [[AT.roots, 4], [AT.pdpts, 3], [AT.pds, 2], [AT.pts, 1]] as const)
    for (const table of tables) for (const index of TEST_INDICES[level]) view.setBigUint64(table * PAGE + 8 * index, randomEntry(random, level), true)
}

let template: Uint8Array | undefined

/** What is the same for all programs. */
function buildTemplate(): Uint8Array {
  const ram = new Uint8Array(RAM)
  const view = new DataView(ram.buffer)
  const entry = (page: number, index: number, value: bigint): void => view.setBigUint64(page * PAGE + 8 * index, value, true)
  // The kernel's own entries are marked ahead: when it is that a processor fetches its next instruction is its own affair.
  const upper = P | W | U | FLAGS.A
  for (const root of AT.roots) entry(root, 0, linearOf(AT.kernelPdpt) | upper)
  entry(AT.kernelPdpt, 0, linearOf(AT.kernelPd) | upper)
  entry(AT.kernelPd, 0, linearOf(AT.kernelPt) | upper)
  for (let page = 1; page < PAGES; page++) {
    const isUsers = page === AT.user || page === AT.userSnippets || page === AT.userStack
    entry(AT.kernelPt, page, linearOf(page) | P | W | (isUsers ? U : 0n) | G | FLAGS.A | FLAGS.D)
  }
  const random = new Random(1)
  for (let page = AT.data; page < AT.data + AT.dataPages; page++) fillData(random, ram, page)
  fillData(random, ram, AT.userSnippets)
  writeGates(view)
  for (const [selector, value] of Object.entries(DESCRIPTORS)) view.setBigUint64(AT.gdt * PAGE + Number(selector), value, true)
  const tss = linearOf(AT.tss) + BigInt(TSS_OFFSET)
  view.setBigUint64(AT.gdt * PAGE + SELECTOR.tss, 0x0000_8b00_0000_0067n | ((tss & 0xff_ffffn) << 16n) | ((tss & 0xff00_0000n) << 32n), true)
  view.setBigUint64(Number(tss) + 4, KERNEL_STACK, true)
  view.setBigUint64(Number(tss) + 0x24, INTERRUPT_STACK, true)
  return ram
}

/** Indices that test addresses have at each level, so that a few tables hold all of them. Large pages then lead to pages of data, too. */
export const TEST_INDICES = { 4: [1, 2, 0x1ff], 3: [0, 1], 2: [0, 1], 1: [32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43] } as const

/** An entry that may be in a table of this level: mostly one that leads on. */
export function randomEntry(random: Random, level: 1 | 2 | 3 | 4): bigint {
  if (random.below(8) === 0) return random.below(2) ? 0n : BigInt(random.below(1 << 20)) & ~P
  let flags = P
  if (random.below(5)) flags |= W
  if (random.below(2)) flags |= U
  if (random.below(8) === 0) flags |= FLAGS.NX
  if (random.below(3) === 0) flags |= FLAGS.A
  if (random.below(6) === 0) flags |= G
  if (level === 1) {
    if (random.below(4) === 0) flags |= FLAGS.D
    return linearOf(AT.data + random.below(AT.dataPages)) | flags
  }
  if (level < 4 && random.below(level === 2 ? 6 : 20) === 0) return FLAGS.PS | flags
  // A reserved bit now and then.
  if (random.below(40) === 0) return flags | (random.below(2) ? 1n << 45n : level === 4 ? FLAGS.PS : (1n << 13n) | FLAGS.PS)
  const next = level === 4 ? AT.pdpts : level === 3 ? AT.pds : AT.pts
  return linearOf(next[random.below(next.length)]!) | flags
}

/** A linear address that programs aim at, of a page. */
export function testPage(random: Random): bigint {
  const pick = (list: readonly number[]): bigint => BigInt(list[random.below(list.length)]!)
  const linear = (pick(TEST_INDICES[4]) << 39n) | (pick(TEST_INDICES[3]) << 30n) | (pick(TEST_INDICES[2]) << 21n) | (pick(TEST_INDICES[1]) << 12n)
  return BigInt.asUintN(64, BigInt.asIntN(48, linear))
}

/**
 * Where in a page of data there is code to call: it counts in RBX and returns. The second piece goes on in the third, so that a region has bytes that its
 * first block has not. The last piece goes on in the page behind: of odd pages with RET, of even ones with the immediate operand of MOV RBP, whose bytes
 * share no eight with other code.
 */
export const SNIPPETS = [0x100, 0x140, 0x180, 0x800, 0xffa] as const
export const JUMPING = 0x140
const JUMPED_TO = 0x180
export const CROSSING = 0xffa
/** Bytes of a snippet that are an immediate operand; of the crossing one, in the page behind. */
export const immediateOf = (snippet: number): readonly number[] => (snippet === CROSSING ? [7, 9] : [2, 3, 4, 5])

function fillData(random: Random, ram: Uint8Array, page: number): void {
  const start = page * PAGE
  for (let n = 0; n < PAGE; n += 8) new DataView(ram.buffer).setUint32(start + n, random.u32(), true)
  for (const offset of SNIPPETS) {
    const code = [0x81, 0xc3, page, offset & 0xff, 0x55, 0x00, ...(offset === JUMPING ? asm.jumpRelative(JUMPED_TO - JUMPING - 11) : asm.ret())] // ADD EBX, imm32
    ram.set(code.slice(0, PAGE - offset), start + offset)
  }
  if (page % 2 === 0) ram.set([...asm.nop(), ...asm.nop(), ...asm.nop(), ...asm.nop(), ...asm.movImmediate(R.rbp, 0n).slice(0, 2)], start + CROSSING)
  ram.set([...asm.ret(), page, 0, 0, 0, 0, 0, 0, ...asm.add(R.rbx, R.rbp), ...asm.ret()], start)
}

/** Each handler keeps what it was told in the log, and goes on at R15; that of external interrupts returns. */
function writeGates(view: DataView): void {
  const ram = new Uint8Array(view.buffer)
  for (let vector = 0; vector <= LAST_VECTOR; vector++) {
    if (vector > 31 && vector !== EXTERNAL && vector !== USER_CALL) continue
    const handler = linearOf(AT.handlers) + BigInt(handlerOffset(vector))
    ram.set(vector === EXTERNAL ? interruptHandler() : faultHandler(vector), Number(handler))
    writeGate(view, vector, { handler, dpl: vector === USER_CALL || vector === 3 ? 3 : 0, ist: vector === 8 || vector === 2 ? 1 : 0, type: vector === 3 ? 15 : 14 })
  }
  ram.set([...asm.movImmediate(R.rsp, KERNEL_STACK), ...asm.jump(R.r15)], Number(SYSCALL_ENTRY))
}
const HANDLER_BYTES = 192
const handlerOffset = (vector: number): number => (vector === EXTERNAL ? 32 : vector === USER_CALL ? 33 : vector) * HANDLER_BYTES

export function gate({ handler, dpl = 0, ist = 0, type = 14, present = true, selector = SELECTOR.code }: { handler: bigint; dpl?: number; ist?: number; type?: number; present?: boolean; selector?: number }): [bigint, bigint] {
  const low = (handler & 0xffffn) | (BigInt(selector) << 16n) | (BigInt(ist) << 32n) | (BigInt(type) << 40n) | (BigInt(dpl) << 45n) | (present ? 1n << 47n : 0n) | (((handler >> 16n) & 0xffffn) << 48n)
  return [low, handler >> 32n]
}
function writeGate(view: DataView, vector: number, what: Parameters<typeof gate>[0]): void {
  const [low, high] = gate(what)
  view.setBigUint64(AT.idt * PAGE + 16 * vector, low, true)
  view.setBigUint64(AT.idt * PAGE + 16 * vector + 8, high, true)
}
export const handlerOf = (vector: number): bigint => linearOf(AT.handlers) + BigInt(handlerOffset(vector))

/** Bytes of one entry of the log: vector, six words of the frame, CR2, RSP. */
export const LOG_ENTRY = 72
function faultHandler(vector: number): number[] {
  const words = Array.from({ length: 6 }, (_, n) => [...asm.load(R.rax, R.rsp, 8 * n), ...asm.store(R.rax, R.r12, 8 + 8 * n)])
  return [
    ...asm.movImmediate32(R.rax, vector), ...asm.store(R.rax, R.r12, 0), ...words.flat(),
    ...asm.fromControl(2, R.rax), ...asm.store(R.rax, R.r12, 56),
    ...asm.addImmediate(R.r12, LOG_ENTRY), ...asm.jump(R.r15),
  ]
}
function interruptHandler(): number[] {
  return [...asm.store(R.rsp, R.r12, 0), ...asm.push(R.rax), ...asm.load(R.rax, R.rsp, 8), ...asm.store(R.rax, R.r12, 8), ...asm.pop(R.rax), ...asm.addImmediate(R.r12, LOG_ENTRY), ...asm.iretq()]
}
