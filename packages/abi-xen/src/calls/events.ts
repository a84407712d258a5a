/** Event channel operations. (Xen, "public/event_channel.h") */

import type { EventError } from '@nonroot/contracts'
import { isSelf, eventCode, type Call, type Handler } from '../call.ts'
import { DOMID_SELF, fail } from '../facts.ts'

/** Gives a port that goes back into the structure at `at`, or a result. */
interface Operation {
  readonly bytes: number
  run(call: Call, argument: DataView): number
}

const u16 = (view: DataView, at: number): number => view.getUint16(at, true)
const u32 = (view: DataView, at: number): number => view.getUint32(at, true)
/** Own number and "self" are one; others are as they are. */
const canonical = (domain: number): number => (isSelf(domain) ? DOMID_SELF : domain)

function port(argument: DataView, at: number, result: number | EventError): number {
  if (typeof result === 'string') return eventCode(result)
  argument.setUint32(at, result, true)
  return 0
}

const STATES = ['closed', 'unbound', 'interdomain', 'physical', 'virtual', 'ipi'] as const

const OPERATIONS: Readonly<Record<number, Operation>> = {
  0: {
    bytes: 12,
    run: ({ domain }, a) => port(a, 8, domain.platform.events.bindInterdomain(canonical(u16(a, 0)), u32(a, 4))),
  },
  1: { bytes: 12, run: ({ domain }, a) => port(a, 8, domain.platform.events.bindVirtual(u32(a, 4), u32(a, 0))) },
  3: { bytes: 4, run: ({ domain }, a) => eventCode(domain.platform.events.close(u32(a, 0))) },
  4: { bytes: 4, run: ({ domain }, a) => eventCode(domain.platform.events.send(u32(a, 0))) },
  5: { bytes: 24, run: status },
  6: {
    bytes: 8,
    run: ({ domain }, a) =>
      isSelf(u16(a, 0)) ? port(a, 4, domain.platform.events.allocateUnbound(canonical(u16(a, 2)))) : fail('EPERM'),
  },
  7: { bytes: 8, run: ({ domain }, a) => port(a, 4, domain.platform.events.bindIpi(u32(a, 0))) },
  8: { bytes: 8, run: ({ domain }, a) => eventCode(domain.platform.events.bindVcpu(u32(a, 0), u32(a, 4))) },
  9: { bytes: 4, run: ({ domain }, a) => eventCode(domain.platform.events.unmask(u32(a, 0))) },
}

function status({ domain }: Call, argument: DataView): number {
  if (!isSelf(u16(argument, 0))) return fail('EPERM')
  const found = domain.platform.events.status(u32(argument, 4))
  if (typeof found === 'string') return eventCode(found)
  argument.setUint32(8, STATES.indexOf(found.state), true)
  argument.setUint32(12, found.vcpu, true)
  if (found.state === 'virtual') argument.setUint32(16, found.virtual, true)
  else {
    argument.setUint16(16, found.remote, true)
    argument.setUint32(20, found.remotePort, true)
  }
  return 0
}

/** (operation, argument). */
export const eventChannelOp: Handler = (call) => {
  const operation = OPERATIONS[call.u32(0)]
  if (!operation) return fail('ENOSYS')
  const argument = call.read(call.args[1]!, operation.bytes)
  if (!argument) return fail('EFAULT')
  const result = operation.run(call, argument)
  return result < 0 || call.write(call.args[1]!, argument) ? result : fail('EFAULT')
}
