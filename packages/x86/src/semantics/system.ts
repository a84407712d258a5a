/**
 * System instructions: operands are computed here, and system routines (system/) do the work, except what is short and frequent: flags, SWAPGS, the
 * FS and GS bases, SYSCALL and SYSRET in their usual form. (SDM Vol. 2, the instructions' own pages)
 */
import { STATUS_FLAGS, SYSRET_FLAGS } from '../state/flags.ts'
import { EXIT, gpr, RCX, S, SEG, segment, SEGMENT, TLB_BANK, TLB_BANK_SIZE } from '../state/layout.ts'
import { CR4, FLAG, VECTOR } from '../state/register-bits.ts'
import { dpl, FLAT, NO_RPL } from '../state/selectors.ts'
import { MODE } from '../state/mode.ts'
import { SHADOW } from '../state/shadow.ts'
import { notCanonical, type Operand, type Semantics, type SemanticsBuilder, type Value } from './builder.ts'

const R11 = 11

// ------------------------------------------------------------------ shared parts

/** Ends the block after an instruction that may change decoding or translation. */
const serialise = (b: SemanticsBuilder, name: string, ...args: Value[]): void => {
  b.system(name, ...args)
  b.endBlock()
}
const flags = (b: SemanticsBuilder): Value => b.slot(S.flags, 'i32')
const hasFlag = (b: SemanticsBuilder, flag: number): Value => b.and(flags(b), flag)
const notKernel = (b: SemanticsBuilder): Value => b.ne(b.slot(S.cpl, 'i32'), 0)
/** IOPL as i32. */
const iopl = (b: SemanticsBuilder): Value => b.and(b.shrU(flags(b), 12), 3)
/** CLI, STI and their like: #GP where CPL exceeds IOPL. Virtual-8086 mode runs at CPL 3, so the rule is the same. */
const needIoPrivilege = (b: SemanticsBuilder): void => b.raiseIf(b.gtU(b.slot(S.cpl, 'i32'), iopl(b)), VECTOR.GP)
/** SGDT, SIDT, SLDT, SMSW and STR under CR4.UMIP. */
const needUmip = (b: SemanticsBuilder): void =>
  b.raiseIf(b.and(notKernel(b), b.ne(b.and(b.slot(S.cr4, 'i32'), CR4.umip), 0)), VECTOR.GP)
/** Returns to the run loop after this instruction if an event is pending. */
function attend(b: SemanticsBuilder): void {
  b.ifUnlikely(b.slot(S.attention, 'i32'), () => {
    b.setSlot(S.rip, b.nextRip())
    b.setSlot(S.exit, b.i32(EXIT.attention))
    b.leave()
  })
}
const setBank = (b: SemanticsBuilder, bank: Value | number): void => {
  const number = typeof bank === 'number' ? b.i32(bank) : bank
  b.setSlot(S.tlb, b.add(b.slot(S.banks, 'i32'), b.mul(number, TLB_BANK_SIZE)))
}
/** Bank of CPL 0 with these flags. */
function supervisorBank(b: SemanticsBuilder, newFlags: Value): Value {
  const guarded = b.and(b.eqz(b.and(newFlags, FLAG.AC)), b.ne(b.and(b.slot(S.cr4, 'i32'), CR4.smap), 0))
  return b.select(guarded, b.i32(TLB_BANK.supervisor), b.i32(TLB_BANK.supervisorUserAllowed))
}
/** Number of the control or debug register in ModRM.reg, whose record field is the offset of the general register of that number. */
const controlNumber = (b: SemanticsBuilder): Value => b.shrU(b.sub(b.registerAddress('segment', 'reg'), b.cpu), 3)
/** Number of the segment register in ModRM.reg. */
const segmentNumber = (b: SemanticsBuilder): Value =>
  b.divU(b.sub(b.sub(b.registerAddress('segment', 'reg'), b.cpu), segment(0)), SEG.size)
const generalNumber = (b: SemanticsBuilder): Value => b.shrU(b.sub(b.registerAddress('segment', 'rm'), b.cpu), 3)

/** Selector in a segment register, i64. */
const selector = (b: SemanticsBuilder, n: number): Value => b.slot(segment(n) + SEG.selector, 'i64', 16)

// ------------------------------------------------------------------ segments and tables

/** PUSH of a 32-bit operand writes the selector's 16 bits only, as the processors since the Core do. */
const pushSegment: Semantics = (b, source) => {
  const bytes = b.operandSize / 8
  const top = b.cut(b.sub(b.stackPointer(), bytes), b.stackSize)
  const written = bytes === 4 ? 2 : bytes
  b.store(b.linear(SEGMENT.ss, top, written, 'write'), written, selector(b, source!.spec.register), SEGMENT.ss)
  b.setStackPointer(top)
}

const popSegment: Semantics = (b, destination) => {
  const { value, pointerAfter } = b.top(b.operandSize / 8)
  b.system('loadSegmentRegister', b.i32(destination!.spec.register), b.and(value, 0xffff), b.i32(1))
  b.setStackPointer(pointerAfter)
  b.endBlock()
}

const FAR_POINTER: Readonly<Record<string, number>> = {
  LES: SEGMENT.es,
  LDS: SEGMENT.ds,
  LSS: SEGMENT.ss,
  LFS: SEGMENT.fs,
  LGS: SEGMENT.gs,
}
/** LDS and its like. The offset comes first in memory. */
const loadFarPointer: Semantics = (b, destination, source) => {
  const { offset, selector: wanted } = readFarPointer(b, source!)
  b.system('loadSegmentRegister', b.i32(FAR_POINTER[b.instruction.row.mnemonic]!), wanted, b.i32(0))
  destination!.write(offset)
  b.endBlock()
}

/** A far pointer in memory: m16:16, m16:32 or m16:64. */
export function readFarPointer(b: SemanticsBuilder, source: Operand): { offset: Value; selector: Value } {
  const bytes = b.operandSize / 8
  const address = source.address()
  const offset = b.load(b.linear('operand', address, bytes, 'read'), bytes)
  const after = b.cut(b.add(address, bytes), b.addressSize)
  return { offset, selector: b.load(b.linear('operand', after, 2, 'read'), 2) }
}

const tableOperand = (b: SemanticsBuilder, operand: Operand, access: 'read' | 'write'): Value =>
  b.linear('operand', operand.address(), b.codeSize === 64 ? 10 : 6, access)
const loadTable =
  (table: number): Semantics =>
  (b, source) =>
    b.system('loadTable', b.i32(table), tableOperand(b, source!, 'read'), b.i32(b.operandSize))
const storeTable =
  (table: number): Semantics =>
  (b, destination) => {
    needUmip(b)
    b.system('storeTable', b.i32(table), tableOperand(b, destination!, 'write'))
  }
const storeSelector =
  (n: number): Semantics =>
  (b, destination) => {
    needUmip(b)
    b.system('nothing')
    destination!.write(selector(b, n))
  }

/** LAR and LSL: the destination changes only where the selector can be seen. */
const inspect =
  (name: string): Semantics =>
  (b, destination, source) => {
    b.system(name, b.and(source!.read(), 0xffff))
    b.if(b.flag('zf'), () => destination!.write(b.truncate(b.slot(S.value), destination!.width)))
  }

/** The operand must be writable, and is written only where it changes. (SDM Vol. 2A, "ARPL") */
const arpl: Semantics = (b, destination, source) => {
  const mine = b.and(source!.read(), 3)
  const old = destination!.readToWrite()
  const less = b.ltU(b.and(old, 3), mine)
  b.if(less, () => destination!.write(b.or(b.and(old, NO_RPL), mine)))
  b.setFlag('zf', less)
}

const segments: Record<string, Semantics> = {
  movFromSegment: (b, destination) =>
    destination!.write(b.rawLoad('i64', b.registerAddress('segment', 'reg'), SEG.selector, 16)),
  movToSegment: (b, _destination, source) =>
    serialise(b, 'loadSegmentRegister', segmentNumber(b), b.and(source!.read(), 0xffff), b.i32(1)),
  pushSegment,
  popSegment,
  loadFarPointer,
  sldt: storeSelector(SEGMENT.ldtr),
  str: storeSelector(SEGMENT.tr),
  lldt: (b, source) => b.system('lldt', source!.read()),
  ltr: (b, source) => b.system('ltr', source!.read()),
  sgdt: storeTable(SEGMENT.gdtr),
  sidt: storeTable(SEGMENT.idtr),
  lgdt: loadTable(SEGMENT.gdtr),
  lidt: loadTable(SEGMENT.idtr),
  verr: (b, source) => b.system('verr', source!.read()),
  verw: (b, source) => b.system('verw', source!.read()),
  lar: inspect('lar'),
  lsl: inspect('lsl'),
  arpl,
}

// ------------------------------------------------------------------ control and debug registers

const readRegister =
  (name: string): Semantics =>
  (b, destination) => {
    b.system(name, controlNumber(b), generalNumber(b))
    destination!.write(b.truncate(b.slot(S.value), destination!.width))
  }
const writeRegister =
  (name: string): Semantics =>
  (b, _destination, source) =>
    serialise(b, name, controlNumber(b), source!.read(), generalNumber(b))

const registers: Record<string, Semantics> = {
  movFromControl: readRegister('movFromControl'),
  movToControl: writeRegister('movToControl'),
  movFromDebug: readRegister('movFromDebug'),
  movToDebug: writeRegister('movToDebug'),
  smsw: (b, destination) => {
    needUmip(b)
    b.system('nothing')
    destination!.write(b.truncate(b.slot(S.cr0), destination!.width))
  },
  lmsw: (b, source) => serialise(b, 'lmsw', source!.read()),
  clts: (b) => serialise(b, 'clts'),
}

// ------------------------------------------------------------------ flags

const ALWAYS_CHANGEABLE = FLAG.TF | FLAG.DF | FLAG.NT | FLAG.AC | FLAG.ID

/** POPF's mask by CPL and IOPL. RF, VM, VIF and VIP stay; RF, which never stays set here, aside. (SDM Vol. 2B, "POPF") */
function popMask(b: SemanticsBuilder): Value {
  const cpl = b.slot(S.cpl, 'i32')
  const kernel = b.select(b.eqz(cpl), b.i32(FLAG.IOPL), b.i32(0))
  const interrupts = b.select(b.leU(cpl, iopl(b)), b.i32(FLAG.IF), b.i32(0))
  return b.or(b.or(kernel, interrupts), b.operandSize === 16 ? ALWAYS_CHANGEABLE & 0xffff : ALWAYS_CHANGEABLE)
}

const popf: Semantics = (b) => {
  virtual8086NeedsIoPrivilege(b)
  const { value, pointerAfter } = b.top(b.operandSize / 8)
  const mask = popMask(b)
  const image = b.wrap(value)
  const old = flags(b)
  const next = b.or(b.and(b.and(old, b.xor(mask, -1)), ~FLAG.RF), b.and(image, mask))
  b.setStackPointer(pointerAfter)
  b.setStatusFlags(value)
  b.setSlot(S.flags, next)
  // TF and AC mean more than themselves.
  b.ifUnlikely(b.and(b.or(b.xor(next, old), b.and(next, FLAG.TF)), FLAG.TF | FLAG.AC), () => b.system('flagsChanged'))
  b.if(b.and(b.and(next, b.xor(old, -1)), FLAG.IF), () => attend(b))
  b.endBlock()
}

function virtual8086NeedsIoPrivilege(b: SemanticsBuilder): void {
  if (b.codeSize === 64) return
  b.raiseIf(b.and(b.ne(hasFlag(b, FLAG.VM), 0), b.ltU(iopl(b), 3)), VECTOR.GP)
}

const pushf: Semantics = (b) => {
  virtual8086NeedsIoPrivilege(b)
  const image = b.or(b.statusFlags(), b.extendU(b.and(flags(b), ~(FLAG.VM | FLAG.RF))))
  b.push(b.truncate(image, b.operandSize), b.operandSize / 8)
}

/** STI blocks interrupts for one more instruction if they were disabled before. Pending events are checked after that one. */
const sti: Semantics = (b) => {
  needIoPrivilege(b)
  b.if(b.eqz(hasFlag(b, FLAG.IF)), () => {
    b.setSlot(S.shadow, b.i32(SHADOW.sti))
    b.setSlot(S.mode, b.or(b.slot(S.mode, 'i32'), MODE.shadow))
    b.setSlot(S.flags, b.or(flags(b), FLAG.IF))
  })
  b.endBlock()
}

const interruptFlag: Record<string, Semantics> = {
  pushf,
  popf,
  cli: (b) => {
    needIoPrivilege(b)
    b.setSlot(S.flags, b.and(flags(b), ~FLAG.IF))
  },
  sti,
  clac: (b) => {
    const next = b.and(flags(b), ~FLAG.AC)
    b.setSlot(S.flags, next)
    setBank(b, supervisorBank(b, next))
  },
  stac: (b) => {
    b.setSlot(S.flags, b.or(flags(b), FLAG.AC))
    setBank(b, TLB_BANK.supervisorUserAllowed)
  },
}

// ------------------------------------------------------------------ ports

const portSize = (operand: Operand): number => operand.width / 8

const ports: Record<string, Semantics> = {
  in: (b, destination, port) => {
    const bytes = portSize(destination!)
    b.system('input', port!.read(), b.i32(bytes))
    destination!.write(b.truncate(b.slot(S.value), destination!.width))
  },
  out: (b, port, source) => b.system('output', port!.read(), b.i32(portSize(source!)), source!.read()),
  ins: (b, destination) => stringPort(b, 'ins', destination!),
  outs: (b, _port, source) => stringPort(b, 'outs', source!),
}
function stringPort(b: SemanticsBuilder, name: string, memory: Operand): void {
  const bytes = memory.spec.size === 'b' ? 1 : b.operandSize === 16 ? 2 : 4
  const port = b.slot(gpr(2), 'i64', 16)
  b.system(
    name,
    port,
    b.i32(bytes),
    b.i32(b.instruction.rep ? 1 : 0),
    b.i32(b.addressSize),
    b.i32(b.instruction.segment),
  )
}

// ------------------------------------------------------------------ machine

const plain =
  (name: string): Semantics =>
  (b) =>
    b.system(name)
const ending =
  (name: string): Semantics =>
  (b) =>
    serialise(b, name)
const undefinedOpcode: Semantics = (b) => b.raise(VECTOR.UD)

const swapgs: Semantics = (b) => {
  const base = segment(SEGMENT.gs) + SEG.base
  const user = b.slot(base)
  const kernel = b.slot(S.kernelGsBase)
  b.setSlot(base, kernel)
  b.setSlot(S.kernelGsBase, user)
}

const needFsgsbase = (b: SemanticsBuilder): void =>
  b.raiseIf(b.eqz(b.and(b.slot(S.cr4, 'i32'), CR4.fsgsbase)), VECTOR.UD)
const readBase =
  (n: number): Semantics =>
  (b, destination) => {
    needFsgsbase(b)
    destination!.write(b.truncate(b.slot(segment(n) + SEG.base), destination!.width))
  }
const writeBase =
  (n: number): Semantics =>
  (b, source) => {
    needFsgsbase(b)
    const value = source!.read()
    if (source!.width === 64) b.raiseIf(notCanonical(b, value), VECTOR.GP)
    b.setSlot(segment(n) + SEG.base, value)
  }

/** A reference to memory that does nothing but fault as a byte read would. */
const touch: Semantics = (b, operand) => {
  b.setSlot(S.temp, b.load(b.linear('operand', operand!.address(), 1, 'read'), 1))
}

const machine: Record<string, Semantics> = {
  hlt: ending('hlt'),
  mwait: ending('mwait'),
  monitor: (b) => {
    b.system('monitor', b.linear('operand', b.slot(gpr(0), 'i64', b.addressSize), 1, 'read'))
  },
  cpuid: plain('cpuid'),
  rdmsr: plain('rdmsr'),
  wrmsr: ending('wrmsr'),
  rdtsc: plain('rdtsc'),
  rdtscp: plain('rdtscp'),
  rdpmc: plain('rdpmc'),
  rdpid: (b, destination) => destination!.write(b.slot(S.tscAux)),
  xgetbv: plain('xgetbv'),
  xsetbv: ending('xsetbv'),
  invd: plain('nothing'),
  wbinvd: plain('nothing'),
  clflush: touch,
  fence: () => {},
  invlpg: (b, operand) => {
    const linear = b.linear('operand', operand!.address(), 1, 'read')
    serialise(b, 'invlpg', linear)
  },
  invpcid: (b, type, descriptor) =>
    serialise(b, 'invpcid', type!.read(), b.linear('operand', descriptor!.address(), 16, 'read')),
  serialize: undefinedOpcode,
  umonitor: undefinedOpcode,
  umwait: undefinedOpcode,
  tpause: undefinedOpcode,
  getsec: plain('undefinedOpcode'),
  encls: plain('undefinedOpcode'),
  enclu: undefinedOpcode,
  rdpkru: undefinedOpcode,
  wrpkru: undefinedOpcode,
  swapgs,
  rdfsbase: readBase(SEGMENT.fs),
  rdgsbase: readBase(SEGMENT.gs),
  wrfsbase: writeBase(SEGMENT.fs),
  wrgsbase: writeBase(SEGMENT.gs),
}

/** CET is not advertised: RDSSP is a NOP, the others are undefined. */
const shadowStacks: Record<string, Semantics> = { rdssp: () => {} }
for (const name of ['incssp', 'setssbsy', 'saveprevssp', 'rstorssp', 'clrssbsy', 'wrss', 'wruss'])
  shadowStacks[name] = undefinedOpcode

/** VMX instructions exit from non-root operation, before their operands are looked at; elsewhere they are undefined: VMX is not advertised. */
const vmx: Record<string, Semantics> = {}
for (const name of ['vmcall', 'vmfunc']) vmx[name] = ending('undefinedOpcode')
for (const name of ['vmlaunch', 'vmresume', 'vmxoff', 'vmxon', 'invept', 'invvpid']) vmx[name] = ending('vmxInstruction')
for (const name of ['vmptrld', 'vmptrst', 'vmclear', 'vmread', 'vmwrite']) vmx[name] = plain('vmxInstruction')

// ------------------------------------------------------------------ extended state

/** The whole area is checked against its segment; alignment and paging are the routine's. */
const stateImage =
  (name: string, bytes: number, access: 'read' | 'write'): Semantics =>
  (b, operand) =>
    b.system(name, b.linear('operand', operand!.address(), bytes, access), b.i32(b.operandSize))

const extendedState: Record<string, Semantics> = {
  fxsave: stateImage('fxsave', 512, 'write'),
  fxrstor: stateImage('fxrstor', 512, 'read'),
  xrstor: stateImage('xrstor', 576, 'read'),
  xrstors: stateImage('xrstors', 576, 'read'),
}
for (const name of ['xsave', 'xsaveopt', 'xsavec', 'xsaves']) extendedState[name] = stateImage(name, 576, 'write')

// ------------------------------------------------------------------ SYSCALL and SYSRET

/** Writes a flat segment register: all of its hidden part is constant but the selector. */
function setFlat(b: SemanticsBuilder, n: number, selectorValue: Value, rights: number): void {
  const at = segment(n)
  const data = n !== SEGMENT.cs
  b.setSlot(at + SEG.base, b.const(0))
  b.setSlot(at + SEG.readBound, b.const(0x1_0000_0000))
  b.setSlot(at + SEG.writeBound, b.const(data ? 0x1_0000_0000 : 0))
  b.setSlot(at + SEG.limit, b.i32(-1))
  b.setSlot(at + SEG.selector, b.and(selectorValue, 0xffff))
  b.setSlot(at + SEG.attributes, b.i32(rights))
}
const star = (b: SemanticsBuilder): Value => b.slot(S.star + 4, 'i32')

const syscall: Semantics = (b) => {
  const old = flags(b)
  // A trap to take, or SYSCALL switched off: the routine knows.
  const unusual = b.or(b.and(old, FLAG.TF), b.eqz(b.and(b.slot(S.efer, 'i32'), 1)))
  b.ifUnlikely(unusual, () => b.system('syscall'))
  const all = b.or(b.statusFlags(), b.extendU(b.and(old, ~FLAG.RF)))
  const target = b.slot(S.lstar)
  const next = b.and(b.wrap(all), b.xor(b.slot(S.fmask, 'i32'), -1))
  b.writeRegister(RCX, 64, b.nextRip())
  b.writeRegister(R11, 64, all)
  b.setStatusFlags(b.extendU(next))
  const others = b.or(b.and(next, ~STATUS_FLAGS), 2)
  b.setSlot(S.flags, others)
  const cs = star(b)
  setFlat(b, SEGMENT.cs, b.and(cs, NO_RPL), FLAT.code64)
  setFlat(b, SEGMENT.ss, b.add(b.and(cs, NO_RPL), 8), FLAT.data)
  b.setSlot(S.cpl, b.i32(0))
  b.setSlot(S.mode, b.and(b.slot(S.mode, 'i32'), ~MODE.user))
  setBank(b, supervisorBank(b, others))
  b.jump(target)
}
const sysret: Semantics = (b) => {
  const image = b.readRegister(R11, 64)
  const next = b.wrap(image)
  const target = b.readRegister(RCX, 64)
  const unusual = b.or(
    b.or(b.and(next, FLAG.TF | FLAG.AC), b.eqz(b.and(b.slot(S.efer, 'i32'), 1))),
    b.or(notCanonical(b, target), b.slot(S.attention, 'i32')),
  )
  b.ifUnlikely(unusual, () => b.system('sysret', b.i32(64)))
  b.setStatusFlags(image)
  b.setSlot(S.flags, b.or(b.and(next, SYSRET_OTHERS), 2))
  const user = b.shrU(star(b), 16)
  setFlat(b, SEGMENT.cs, b.or(b.and(b.add(user, 16), NO_RPL), 3), FLAT.code64 | dpl(3))
  setFlat(b, SEGMENT.ss, b.or(b.and(b.add(user, 8), NO_RPL), 3), FLAT.data | dpl(3))
  b.setSlot(S.cpl, b.i32(3))
  b.setSlot(S.mode, b.or(b.slot(S.mode, 'i32'), MODE.user))
  setBank(b, TLB_BANK.user)
  b.jump(target)
}
/** Of the flags that SYSRET loads, those that have no slot of their own. */
const SYSRET_OTHERS = SYSRET_FLAGS & ~STATUS_FLAGS

const calls: Record<string, Semantics> = {
  syscall,
  sysret: (b) => (b.operandSize === 64 ? sysret(b) : serialise(b, 'sysret', b.i32(32))),
  sysenter: ending('sysenter'),
  sysexit: (b) => serialise(b, 'sysexit', b.i32(b.operandSize)),
}

// ------------------------------------------------------------------

export const system: Record<string, Semantics> = {
  ...segments,
  ...registers,
  ...interruptFlag,
  ...ports,
  ...machine,
  ...shadowStacks,
  ...vmx,
  ...extendedState,
  ...calls,
}
