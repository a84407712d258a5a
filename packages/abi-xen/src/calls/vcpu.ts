/** vCPUs: start and stop, timers, addresses of their shared structures. (Xen, "public/vcpu.h") */

import { invariant } from '@nonroot/contracts'
import type { Hpa } from '@nonroot/contracts'
import { statusCode, type Call } from '../call.ts'
import type { DomainVcpu } from '../domain.ts'
import { fail, INFO, TIME } from '../facts.ts'
import { initialise } from './vcpu-context.ts'
import { toNumber } from '../numbers.ts'

type Operation = (call: Call, vcpu: DomainVcpu, argument: bigint) => number

const FUTURE_ONLY = 1
const PERIOD = 10_000_000

const up: Operation = ({ domain }, vcpu) => {
  const pv = vcpu.abi?.pv
  if (!pv || !vcpu.initialised) return fail('EINVAL')
  pv.setUp(true)
  vcpu.timers.startPeriodic(PERIOD)
  domain.platform.events.wake(vcpu.index)
  return 0
}
const down: Operation = (_call, vcpu) => {
  vcpu.abi?.pv?.setUp(false)
  vcpu.timers.cancel()
  return 0
}

/** state, state_entry_time, time[4]. Only the vCPU itself decides when it does not run. */
function runState({ domain }: Call, vcpu: DomainVcpu): DataView {
  const view = new DataView(new ArrayBuffer(48))
  view.setBigUint64(8, BigInt(Math.floor(vcpu.since)), true)
  view.setBigUint64(16, BigInt(Math.floor(domain.clock.nowNs() - vcpu.since)), true)
  return view
}

const singleShot: Operation = (call, vcpu, address) => {
  if (vcpu !== call.vcpu) return fail('EINVAL')
  const argument = call.read(address, 16)
  if (!argument) return fail('EFAULT')
  const deadline = toNumber(argument.getBigUint64(0, true))
  if (argument.getUint32(8, true) & FUTURE_ONLY && deadline < call.domain.clock.nowNs()) return fail('ETIME')
  vcpu.timers.setSingle(deadline)
  return 0
}

/** Once: the frame stays in place and is never a table. */
const registerInfo: Operation = (call, vcpu, address) => {
  const argument = call.read(address, 16)
  if (!argument) return fail('EFAULT')
  const { domain } = call
  const frame = toNumber(argument.getBigUint64(0, true))
  const offset = argument.getUint32(8, true)
  if (vcpu.infoFrame !== 0 || offset > 4096 - INFO.bytes || offset & 7) return fail('EINVAL')
  const status = domain.frames.hold(frame)
  if (status !== 'ok') return statusCode(status)
  const page = domain.frames.hostAddress(frame * 4096)
  invariant(page !== undefined, 'a frame that is held has an address')
  const at = (page + offset) as Hpa
  domain.hostMemory.bytes.copyWithin(at, vcpu.info, vcpu.info + INFO.bytes)
  vcpu.infoFrame = frame
  domain.setInfo(vcpu, at)
  domain.platform.events.markAll(vcpu.index)
  return 0
}

/** A copy of the vCPU's clock at a guest address: it never changes afterwards. */
const registerTime: Operation = (call, vcpu, address) => {
  const argument = call.read(address, 8)
  if (!argument) return fail('EFAULT')
  const { bytes } = call.domain.hostMemory
  const at = vcpu.info + INFO.time
  return call.write(argument.getBigUint64(0, true), bytes.slice(at, at + TIME.bytes)) ? 0 : fail('EFAULT')
}

const OPERATIONS: Readonly<Record<number, Operation>> = {
  0: initialise,
  1: up,
  2: down,
  3: (_call, vcpu) => (vcpu.abi?.pv?.isUp ? 1 : 0),
  4: (call, vcpu, address) => (call.write(address, runState(call, vcpu)) ? 0 : fail('EFAULT')),
  5: (call, vcpu, address) => {
    const argument = call.read(address, 8)
    if (!argument) return fail('EFAULT')
    const area = argument.getBigUint64(0, true)
    return area === 0n || call.write(area, runState(call, vcpu)) ? 0 : fail('EFAULT')
  },
  6: (call, vcpu, address) => {
    const argument = call.read(address, 8)
    if (!argument) return fail('EFAULT')
    return vcpu.timers.startPeriodic(toNumber(argument.getBigUint64(0, true))) ? 0 : fail('EINVAL')
  },
  7: (_call, vcpu) => {
    vcpu.timers.cancelPeriodic()
    return 0
  },
  8: singleShot,
  9: (call, vcpu) => {
    if (vcpu !== call.vcpu) return fail('EINVAL')
    vcpu.timers.cancelSingle()
    return 0
  },
  10: registerInfo,
  11: ({ domain }, vcpu) => {
    vcpu.abi?.pv?.sendNmi()
    domain.platform.events.wake(vcpu.index)
    return 0
  },
  13: registerTime,
}

/** Others are of paravirtual guests: with a local APIC, vCPUs are started and stopped through it. */
const ONLY_PARAVIRTUAL = new Set([0, 1, 2, 3, 11])

/** (operation, vCPU, argument). */
export const vcpuOp = (call: Call): number => {
  const number = call.u32(0)
  const operation = call.domain.tables || !ONLY_PARAVIRTUAL.has(number) ? OPERATIONS[number] : undefined
  const vcpu = call.domain.vcpus[call.u32(1)]
  if (!vcpu) return fail('ENOENT')
  return operation ? operation(call, vcpu, call.args[2]!) : fail('ENOSYS')
}
