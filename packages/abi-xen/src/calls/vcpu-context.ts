/** The initial state of a vCPU, which another vCPU supplies. (Xen, "public/arch-x86/xen.h", struct vcpu_guest_context) */

import { statusCode, type Call } from '../call.ts'
import type { DomainVcpu } from '../domain.ts'
import { fail } from '../facts.ts'
import { toNumber } from '../numbers.ts'

const BYTES = 5168
const AT = {
  flags: 512,
  registers: 520,
  rip: 648,
  cs: 656,
  rflags: 664,
  rsp: 672,
  ss: 680,
  traps: 720,
  localBase: 4816,
  localEntries: 4824,
  globalFrames: 4832,
  globalEntries: 4960,
  kernelSs: 4968,
  kernelSp: 4976,
  controls: 4984,
  eventCallback: 5112,
  failsafe: 5120,
  syscall: 5128,
  fsBase: 5144,
  gsKernel: 5152,
  gsUser: 5160,
} as const
const FLAG = { inKernel: 4, failsafeMasks: 8, syscallMasks: 16 } as const
/** Registers of the structure in its order, by their encoding. */
const ORDER = [15, 14, 13, 12, 5, 3, 11, 10, 9, 8, 0, 1, 2, 6, 7]
const RSP = 4

/** All of it is judged before the vCPU counts as initialised. */
export function initialise(call: Call, vcpu: DomainVcpu, address: bigint): number {
  const pv = vcpu.abi?.pv
  if (!pv) return fail('ENOENT')
  if (vcpu.initialised) return fail('EEXIST')
  const context = call.read(address, BYTES)
  if (!context) return fail('EFAULT')
  const u64 = (at: number): bigint => context.getBigUint64(at, true)
  const { tables } = call
  const { index } = vcpu

  const entries = toNumber(u64(AT.globalEntries))
  if (entries > 14 * 512) return fail('EINVAL')
  const frames = Array.from({ length: Math.ceil(entries / 512) }, (_, n) => toNumber(u64(AT.globalFrames + n * 8)))
  let status = tables.setDescriptorFrames(index, frames, entries)
  if (status !== 'ok') return statusCode(status)
  status = tables.setRoot(index, 'kernel', toNumber(u64(AT.controls + 3 * 8) >> 12n))
  if (status !== 'ok') return statusCode(status)
  const user = toNumber(u64(AT.controls + 8) >> 12n)
  if (user !== 0) status = tables.setRoot(index, 'user', user)
  if (status !== 'ok') return statusCode(status)

  pv.clearTraps()
  for (let n = 0; n < 256; n++) {
    const at = AT.traps + n * 16
    const flags = context.getUint8(at + 1)
    pv.setTrap({ vector: n, address: u64(at + 8), privilege: flags & 3, masksEvents: (flags & 4) !== 0 })
  }
  const flags = toNumber(u64(AT.flags))
  pv.setCallback('event', u64(AT.eventCallback), true)
  pv.setCallback('failsafe', u64(AT.failsafe), (flags & FLAG.failsafeMasks) !== 0)
  pv.setCallback('syscall', u64(AT.syscall), (flags & FLAG.syscallMasks) !== 0)
  const registers = new Array<bigint>(16).fill(0n)
  ORDER.forEach((register, n) => (registers[register] = u64(AT.registers + n * 8)))
  registers[RSP] = u64(AT.rsp)
  pv.descriptorsChanged(0)
  pv.initialise({
    registers,
    rip: u64(AT.rip),
    rflags: u64(AT.rflags),
    cs: context.getUint16(AT.cs, true),
    ss: context.getUint16(AT.ss, true),
    kernelStack: { ss: context.getUint16(AT.kernelSs, true), sp: u64(AT.kernelSp) },
    fsBase: u64(AT.fsBase),
    gsKernelBase: u64(AT.gsKernel),
    gsUserBase: u64(AT.gsUser),
    inKernel: (flags & FLAG.inKernel) !== 0,
  })
  vcpu.initialised = true
  return 0
}
