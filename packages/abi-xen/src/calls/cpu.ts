/** Stack, return from a bounce, FPU and debug registers. */

import { NO_RESULT, type Handler } from '../call.ts'
import { fail } from '../facts.ts'

/** (ss, sp). */
export const stackSwitch: Handler = (call) => {
  call.pv.setKernelStack(call.u32(0) & 0xffff, call.args[1]!)
  return 0
}

export const iret: Handler = (call) => {
  call.pv.returnFromTrap()
  return NO_RESULT
}

/** (set). */
export const fpuTaskswitch: Handler = (call) => {
  call.pv.setTaskSwitched(call.u32(0) !== 0)
  return 0
}

/** (register, value). */
export const setDebugreg: Handler = (call) =>
  call.pv.setDebugRegister(call.u32(0), call.args[1]!) ? 0 : fail('EINVAL')

/** (register). Values of DR6 and DR7, and addresses of user programs, are no errors whatever they are. */
export const getDebugreg: Handler = (call) => {
  const value = call.u32(0) < 8 ? call.pv.debugRegister(call.u32(0)) : undefined
  return value === undefined ? fail('EINVAL') : Number(BigInt.asIntN(64, value))
}
