/** HLT, CPUID, MSRs, TSC, TLB invalidation, random numbers, XCR0, and instructions whose only effect is an exit. (SDM Vol. 2, their own pages) */
import { GuestFault, LEFT, NEXT, type Core, type Outcome, type SystemRoutine } from '../state/core.ts'
import { operandAccess, readLinear, readLinear64 } from '../paging/access/linear.ts'
import { flushAllPcids, flushPcid } from '../paging/tlb/contexts.ts'
import { currentAccess, currentPcid, flushAll, flushPage } from '../paging/tlb/tlb.ts'
import { cpuid as fillCpuid } from '../control/cpuid.ts'
import { EXIT, gpr, RAX, RBX, RCX, RDX, S } from '../state/layout.ts'
import { in64BitCode, isLong } from '../state/segments.ts'
import { isCanonical, readMsr, readTsc, writeMsr } from '../control/msrs.ts'
import { CR0, CR4 } from '../state/register-bits.ts'
import { VECTOR } from '../state/register-bits.ts'
import { leaveAfter } from '../control/leave.ts'

const result = new Uint32Array(4)
const fail = (): never => {
  throw new GuestFault(VECTOR.GP, 0)
}
const low32 = (core: Core, n: number): number => core.get32(gpr(n)) >>> 0
function setLow32(core: Core, n: number, value: number): void {
  core.set32(gpr(n), value)
  core.set32(gpr(n) + 4, 0)
}
/** EDX:EAX. */
function setPair(core: Core, value: bigint): void {
  core.set64(gpr(RAX), value & 0xffff_ffffn)
  core.set64(gpr(RDX), (value >> 32n) & 0xffff_ffffn)
}
const pair = (core: Core): bigint => (BigInt(low32(core, RDX)) << 32n) | BigInt(low32(core, RAX))

const hlt = (core: Core): Outcome => leaveAfter(core, EXIT.halt)

function cpuid(core: Core): Outcome {
  fillCpuid(core, low32(core, RAX), low32(core, RCX), result)
  setLow32(core, RAX, result[0]!)
  setLow32(core, RBX, result[1]!)
  setLow32(core, RCX, result[2]!)
  setLow32(core, RDX, result[3]!)
  return NEXT
}

function rdmsr(core: Core): Outcome {
  const value = readMsr(core, low32(core, RCX))
  if (value === undefined) return fail()
  setPair(core, value)
  return NEXT
}

function wrmsr(core: Core): Outcome {
  if (!writeMsr(core, low32(core, RCX), pair(core))) fail()
  return core.get32(S.attention) ? leaveAfter(core, EXIT.attention) : NEXT
}

function timeAllowed(core: Core): void {
  if (core.get32(S.cr4) & CR4.tsd && core.get32(S.cpl) !== 0) fail()
}
function rdtsc(core: Core): Outcome {
  setPair(core, readTsc(core))
  return NEXT
}
function rdtscp(core: Core): Outcome {
  rdtsc(core)
  setLow32(core, RCX, core.get32(S.tscAux))
  return NEXT
}

function countersAllowed(core: Core): void {
  if (!(core.get32(S.cr4) & CR4.pce) && core.get32(S.cpl) !== 0) fail()
}
/** There are no performance counters: every index is out of range. */
function rdpmc(core: Core): Outcome {
  void core
  return fail()
}

/** → argument 0. */
function random(core: Core): Outcome {
  core.set64(S.args, core.host.random64())
  return NEXT
}

/** (linear address). Non-canonical addresses have no effect. */
function invlpg(core: Core): Outcome {
  flushPage(core, core.get32(S.args), core.get32(S.args + 4))
  return NEXT
}

/** (type, linear address of the descriptor). One address of another address space flushes all of that. */
function invpcid(core: Core): Outcome {
  const type = core.arg(0)
  const linear = core.arg(1)
  const access = operandAccess(core)
  const pcid = readLinear64(core, linear, access)
  const address = readLinear64(core, linear + 8n, access)
  if (type > 3n) fail()
  if (pcid >> 12n) fail()
  if (type === 0n && !isCanonical(core, address)) fail()
  if (type < 2n && pcid && !(core.get32(S.cr4) & CR4.pcide)) fail()
  const current = BigInt(currentPcid(core))
  if (type === 0n && pcid === current)
    flushPage(core, Number(BigInt.asIntN(32, address)), Number(BigInt.asIntN(32, address >> 32n)))
  else if (type === 2n) flushAll(core)
  else if (type === 3n) flushAllPcids(core)
  else flushPcid(core, Number(pcid))
  return NEXT
}

function needOsxsave(core: Core): void {
  if (!(core.get32(S.cr4) & CR4.osxsave)) throw new GuestFault(VECTOR.UD)
}
function xgetbv(core: Core): Outcome {
  const index = low32(core, RCX)
  // Index 1 is XCR0 and what is in use: with x87 and SSE only, all of it.
  if (index > 1) fail()
  setPair(core, core.get64(S.xcr0))
  return NEXT
}

function xsetbv(core: Core): Outcome {
  const value = pair(core)
  if (low32(core, RCX) !== 0 || !(value & 1n) || value & ~3n) fail()
  core.set64(S.xcr0, value)
  return NEXT
}

/** (linear address). ECX must be 0: no extensions. The byte is read as by a load. */
function monitor(core: Core): Outcome {
  if (low32(core, RCX) !== 0) fail()
  readLinear(core, core.get32(S.args), core.get32(S.args + 4), 1, operandAccess(core))
  core.monitors = true
  return NEXT
}
/** ECX bit 0: interrupts wake even when masked; it is not advertised. Waits as HLT does. */
function mwait(core: Core): Outcome {
  if (low32(core, RCX) & ~1) fail()
  core.monitors = false
  return leaveAfter(core, EXIT.halt)
}

/** Only calls the intercept hook. */
const nothing = (): Outcome => NEXT

/** VMX is not advertised: its instructions are undefined outside non-root operation, where they are intercepted. */
const undefinedOpcode = (): Outcome => {
  throw new GuestFault(VECTOR.UD)
}

/** An x87, MMX or SSE instruction disabled by CR0 or CR4: the exception depends on the opcode. (SDM Vol. 3A, "CR0.EM", "CR0.TS") */
function fpuUnavailable(core: Core): Outcome {
  const cr0 = core.get32(S.cr0)
  if (isX87(core)) return core.raise(VECTOR.NM)
  return core.raise(cr0 & CR0.ts && !(cr0 & CR0.em) ? VECTOR.NM : VECTOR.UD)
}

/** The running instruction's opcode, after its prefixes, is WAIT or D8 to DF. */
function isX87(core: Core): boolean {
  const rip = core.recordRip() + core.get64(S.csBase)
  for (let i = 0n; i < 15n; i++) {
    const at = rip + i
    const opcode = readLinear(
      core,
      Number(BigInt.asIntN(32, at)),
      Number(BigInt.asIntN(32, at >> 32n)),
      1,
      currentAccess(core),
    )
    const isPrefix = PREFIXES.has(opcode) || (core.get32(S.mode) & 2 && (opcode & 0xf0) === 0x40)
    if (!isPrefix) return (opcode & 0xf8) === 0xd8 || opcode === 0x9b
  }
  return false
}
const PREFIXES = new Set([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0, 0xf2, 0xf3])

/** FERR# is asserted. In the status word's slot, above its 16 bits: what clears the exception clears it. */
const FERR = 0x10000
/**
 * Pending x87 exception with CR0.NE clear: FERR# is asserted, and the processor waits for the resulting interrupt, unless IGNNE# is asserted. (SDM
 * Vol. 1, "MS-DOS Compatibility Sub-mode")
 */
function x87Pending(core: Core): Outcome {
  const status = core.get32(S.fpuStatus)
  core.set32(S.fpuStatus, status | FERR)
  if (core.host.assertFerr?.((status & FERR) === 0)) return NEXT
  core.set64(S.rip, core.recordRip())
  core.set32(S.exit, EXIT.halt)
  return LEFT
}

function notInCompatibilityMode(core: Core): void {
  if (isLong(core) && !in64BitCode(core)) throw new GuestFault(VECTOR.UD)
}

/** Checks that precede the routines and the exits of their instructions. */
export const machineConditions: Record<string, (core: Core) => void> = {
  rdtsc: timeAllowed,
  rdtscp: timeAllowed,
  rdpmc: countersAllowed,
  xgetbv: needOsxsave,
  xsetbv: needOsxsave,
  vmxInstruction: notInCompatibilityMode,
}

export const machine: Record<string, SystemRoutine> = {
  hlt,
  cpuid,
  rdmsr,
  wrmsr,
  rdtsc,
  rdtscp,
  rdpmc,
  random,
  invlpg,
  invpcid,
  xgetbv,
  xsetbv,
  monitor,
  mwait,
  nothing,
  undefinedOpcode,
  vmxInstruction: undefinedOpcode,
  fpuUnavailable,
  x87Pending,
}
