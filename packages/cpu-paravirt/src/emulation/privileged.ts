/**
 * Instructions that trap at CPL 3 and that the guest kernel may use all the same: MSRs, control and debug registers, ports. One function a
 * semantics. (Xen, "xen/arch/x86/pv/emul-priv-op.c")
 */

import {
  ACCESS,
  cpuid,
  gpr,
  GuestFault,
  RAX,
  RBX,
  RCX,
  RDX,
  readRange,
  runningInstruction,
  S,
  updateMode,
  CR0,
} from '@nonroot/x86'
import type { Core, Instruction } from '@nonroot/x86'
import { CR4_FIXED, CR4_GUEST, highOf, lowOf } from '../facts.ts'
import type { Deprivileged } from '../deprivileged.ts'
import { readGuestMsr, writeGuestMsr } from './msrs.ts'

type Emulation = (vcpu: Deprivileged, instruction: Instruction) => boolean

const low32 = (core: Core, register: number): number => core.get32(gpr(register)) >>> 0
const pair = (core: Core): bigint => (BigInt(low32(core, RDX)) << 32n) | BigInt(low32(core, RAX))
function setPair(core: Core, value: bigint): void {
  core.set64(gpr(RAX), value & 0xffff_ffffn)
  core.set64(gpr(RDX), (value >> 32n) & 0xffff_ffffn)
}

const rdmsr: Emulation = (vcpu) => {
  const { core } = vcpu
  const index = low32(core, RCX)
  const value = readGuestMsr(core, index)
  // Before the kernel can take a #GP, what it reads of unknown registers is nothing.
  if (value === undefined && vcpu.state.traps[13]!.address !== 0n) return false
  setPair(core, value ?? 0n)
  return true
}
const wrmsr: Emulation = ({ core }) => writeGuestMsr(core, low32(core, RCX), pair(core))

const movFromControl: Emulation = (vcpu, { reg, rm }) => {
  const value = controlRegister(vcpu, reg)
  if (value === undefined) return false
  vcpu.core.set64(gpr(rm), value)
  return true
}
function controlRegister(vcpu: Deprivileged, number: number): bigint | undefined {
  switch (number) {
    case 0:
      return BigInt(vcpu.core.get32(S.cr0) >>> 0)
    case 2:
      return vcpu.readFaultAddress()
    case 3:
      return BigInt(vcpu.state.kernelRoot)
    case 4:
      return BigInt(vcpu.core.get32(S.cr4) >>> 0)
    default:
      return undefined
  }
}

const movToControl: Emulation = (vcpu, { reg, rm }) => {
  const { core } = vcpu
  const value = core.get64(gpr(rm))
  switch (reg) {
    case 0:
      if ((Number(BigInt.asUintN(32, value)) ^ core.get32(S.cr0)) & ~CR0.ts || value >> 32n) return false
      vcpu.pv.setTaskSwitched((value & 8n) !== 0n)
      return true
    case 2:
      vcpu.writeFaultAddress(value)
      return true
    case 3:
      return vcpu.tables.setRoot(vcpu.index, 'kernel', Number(BigInt.asUintN(52, value) >> 12n)) === 'ok'
    case 4:
      // What the guest may not change stays as it is.
      core.set32(S.cr4, CR4_FIXED | (Number(BigInt.asUintN(32, value)) & CR4_GUEST))
      updateMode(core)
      return true
    default:
      return false
  }
}
const clts: Emulation = ({ pv }) => {
  pv.setTaskSwitched(false)
  return true
}

const movFromDebug: Emulation = ({ core, pv }, { reg, rm }) => {
  const value = pv.debugRegister(reg)
  if (value === undefined) return false
  core.set64(gpr(rm), value)
  return true
}
const movToDebug: Emulation = ({ core, pv }, { reg, rm }) => pv.setDebugRegister(reg, core.get64(gpr(rm)))

const xsetbv: Emulation = ({ core }) => {
  const value = pair(core)
  if (low32(core, RCX) !== 0 || !(value & 1n) || value & ~3n) return false
  core.set64(S.xcr0, value)
  return true
}
const rdtsc: Emulation = (vcpu) => {
  if (!vcpu.state.inKernel) return false
  setPair(vcpu.core, BigInt.asUintN(64, vcpu.core.host.readTsc() + vcpu.core.get64(S.tscOffset)))
  return true
}
const nothing: Emulation = () => true

/** No domain was given ports: what may be asked for answers ones, and takes what is written. */
const input: Emulation = (vcpu, instruction) => {
  if (!mayUsePort(vcpu, instruction)) return false
  const { core } = vcpu
  const bytes = portSize(instruction)
  if (bytes === 4) core.set64(gpr(RAX), 0xffff_ffffn)
  else core.set64(gpr(RAX), core.get64(gpr(RAX)) | BigInt(bytes === 2 ? 0xffff : 0xff))
  return true
}
const output: Emulation = (vcpu, instruction) => mayUsePort(vcpu, instruction)

const portSize = ({ opcode, operandSize }: Instruction): number => (opcode & 1 ? (operandSize === 16 ? 2 : 4) : 1)
function mayUsePort({ core, state }: Deprivileged, instruction: Instruction): boolean {
  if (state.ioPrivilege >= (state.inKernel ? 1 : 3)) return true
  const port = instruction.opcode & 8 ? core.get32(gpr(RDX)) & 0xffff : instruction.immediate & 0xff
  const bytes = portSize(instruction)
  if (port + bytes > state.ioPorts) return false
  const at = state.ioBitmap + BigInt(port >>> 3)
  const map = new Uint8Array(2)
  try {
    readRange(core, lowOf(at), highOf(at), map, (port & 7) + bytes > 8 ? 2 : 1, ACCESS.user)
  } catch (fault) {
    if (!(fault instanceof GuestFault)) throw fault
    return false
  }
  return (((map[0]! | (map[1]! << 8)) >>> (port & 7)) & ((1 << bytes) - 1)) === 0
}

/** By semantics, or by mnemonic where a row has none of its own. */
const KERNEL: Readonly<Record<string, Emulation>> = {
  rdmsr,
  wrmsr,
  movFromControl,
  movToControl,
  clts,
  movFromDebug,
  movToDebug,
  xsetbv,
  rdtsc,
  wbinvd: nothing,
  invd: nothing,
}
const EITHER: Readonly<Record<string, Emulation>> = { in: input, out: output }
/** Skipped where the virtual IOPL allows it: the upcall mask is what counts. */
const INTERRUPT_FLAG = new Set(['cli', 'sti'])

/** The name under which it is counted, if the instruction was carried out; RIP is then behind it. */
export function emulatePrivileged(vcpu: Deprivileged): string | undefined {
  const { core, state } = vcpu
  // A fault of the fetch itself: there is no instruction.
  if (core.recordRip() !== core.get64(S.rip)) return undefined
  const instruction = runningInstruction(core)
  if (!instruction) return undefined
  const { row } = instruction
  const name = row.attributes.semantics ?? row.mnemonic.toLowerCase()
  const emulation = EITHER[name] ?? (state.inKernel ? KERNEL[name] : undefined)
  const isDone = emulation
    ? emulation(vcpu, instruction)
    : INTERRUPT_FLAG.has(name) && state.ioPrivilege >= (state.inKernel ? 1 : 3)
  if (!isDone) return undefined
  core.set64(S.rip, core.get64(S.rip) + BigInt(instruction.length))
  return name
}

/** UD2, "xen", CPUID: the guest asks for CPUID as its hypervisor has it. (Xen, "XEN_EMULATE_PREFIX") */
const PREFIXED_CPUID = [0x0f, 0x0b, 0x78, 0x65, 0x6e, 0x0f, 0xa2]
const bytes = new Uint8Array(PREFIXED_CPUID.length)
const result = new Uint32Array(4)

export function emulatePrefixedCpuid(vcpu: Deprivileged): boolean {
  const { core } = vcpu
  const rip = core.get64(S.rip)
  try {
    readRange(core, lowOf(rip), highOf(rip), bytes, bytes.length, ACCESS.user)
  } catch (fault) {
    if (!(fault instanceof GuestFault)) throw fault
    return false
  }
  if (!PREFIXED_CPUID.every((byte, n) => bytes[n] === byte)) return false
  cpuid(core, low32(core, RAX), low32(core, RCX), result)
  ;[RAX, RBX, RCX, RDX].forEach((register, n) => core.set64(gpr(register), BigInt(result[n]!)))
  core.set64(S.rip, rip + BigInt(bytes.length))
  return true
}
