/** Yielding, blocking, and shutdown of the domain. (Xen, "public/sched.h") */

import type { Call, Handler } from '../call.ts'
import { fail, INFO } from '../facts.ts'
import { toNumber } from '../numbers.ts'

const MOST_POLLED = 128
const REASON = { powerOff: 0, reboot: 1, suspend: 2, crash: 3 } as const

const block: Handler = ({ domain, vcpu, cpu }) => {
  domain.view.setUint8(vcpu.info + INFO.mask, 0)
  if (domain.view.getUint8(vcpu.info + INFO.pending) === 0) cpu.sleep(false)
  return 0
}

const shutdown: Handler = (call) => {
  const argument = call.read(call.args[1]!, 4)
  if (!argument) return fail('EFAULT')
  const { power } = call.domain
  switch (argument.getUint32(0, true)) {
    case REASON.powerOff:
      power.powerOff()
      break
    case REASON.reboot:
      power.reset()
      break
    case REASON.crash:
      power.crashed('the guest told its hypervisor that it crashed')
      break
    default:
      return fail('EINVAL')
  }
  call.cpu.sleep(false)
  return 0
}

/** Until one of the ports is pending, masked or not, or a time has come. A port that never was is an error. (XSA-221) */
function poll(call: Call): number {
  const argument = call.read(call.args[1]!, 24)
  if (!argument) return fail('EFAULT')
  const count = argument.getUint32(8, true)
  const timeout = toNumber(argument.getBigUint64(16, true))
  if (count > MOST_POLLED) return fail('EINVAL')
  const ports = call.read(argument.getBigUint64(0, true), count * 4)
  if (!ports) return fail('EFAULT')
  const { events } = call.domain.platform
  const { clock } = call.domain
  for (let n = 0; n < count; n++) {
    const port = ports.getUint32(n * 4, true)
    if (!events.isOpen(port)) return fail('EINVAL')
    if (events.isPending(port)) return 0
  }
  if (timeout !== 0 && timeout <= clock.nowNs()) return 0
  if (timeout !== 0) call.vcpu.timers.wakeAt(timeout, () => events.wake(call.vcpu.index))
  call.cpu.sleep(true)
  return 0
}

const OPERATIONS: Readonly<Record<number, Handler>> = {
  0: ({ cpu }) => {
    cpu.yield()
    return 0
  },
  1: block,
  2: shutdown,
  3: poll,
  // Why it will be shut down: known when it is.
  5: () => 0,
}

/** (operation, argument). */
export const schedOp: Handler = (call) => OPERATIONS[call.u32(0)]?.(call) ?? fail('ENOSYS')

/** (nanoseconds): 0 cancels. */
export const setTimerOp: Handler = ({ vcpu, args }) => {
  if (args[0] === 0n) vcpu.timers.cancelSingle()
  else vcpu.timers.setSingle(toNumber(args[0]!))
  return 0
}
