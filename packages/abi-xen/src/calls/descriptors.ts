/** Segment descriptors and bases. */

import { statusCode, type Handler } from '../call.ts'
import { fail } from '../facts.ts'
import { toNumber } from '../numbers.ts'

const MOST_ENTRIES = 14 * 512

/** (frames, entries). */
export const setGdt: Handler = (call) => {
  const entries = call.u32(1)
  if (entries > MOST_ENTRIES) return fail('EINVAL')
  const count = Math.ceil(entries / 512)
  const list = call.read(call.args[0]!, count * 8)
  if (!list) return fail('EFAULT')
  const frames = Array.from({ length: count }, (_, n) => toNumber(list.getBigUint64(n * 8, true)))
  const status = call.tables.setDescriptorFrames(call.vcpu.index, frames, entries)
  if (status === 'ok') call.pv.descriptorsChanged()
  return statusCode(status)
}

/** (machine address, descriptor). */
export const updateDescriptor: Handler = (call) => {
  const value = call.args[1]!
  const low = Number(BigInt.asIntN(32, value))
  const high = Number(BigInt.asIntN(32, value >> 32n))
  const status = call.tables.writeDescriptor(call.number(0), low, high)
  if (status === 'ok') for (const vcpu of call.domain.vcpus) vcpu.abi?.pv!.descriptorsChanged()
  return statusCode(status)
}

const WHICH = ['fs', 'gsUser', 'gsKernel'] as const
const USER_SELECTOR = 3

/** (which, base). */
export const setSegmentBase: Handler = (call) => {
  const which = call.u32(0)
  if (which === USER_SELECTOR) {
    call.pv.loadUserGs(call.u32(1) & 0xffff)
    return 0
  }
  const name = WHICH[which]
  return name !== undefined && call.pv.setSegmentBase(name, call.args[1]!) ? 0 : fail('EINVAL')
}
