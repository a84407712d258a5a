/** Hypercalls by number. One function each; sub-operations are tables of their own. */

import { AGAIN, NO_RESULT, type Call, type Handler } from './call.ts'
import { fail } from './facts.ts'
import { callbackOp, setCallbacks, setTrapTable, nmiOp } from './calls/callbacks.ts'
import { consoleIo } from './calls/console.ts'
import { setGdt, setSegmentBase, updateDescriptor } from './calls/descriptors.ts'
import { eventChannelOp } from './calls/events.ts'
import { fpuTaskswitch, getDebugreg, iret, setDebugreg, stackSwitch } from './calls/cpu.ts'
import { grantTableOp } from './calls/grants.ts'
import { memoryOp } from './calls/memory.ts'
import { mmuextOp, mmuUpdate, updateVaMapping } from './calls/mmu.ts'
import { physdevOp } from './calls/physdev.ts'
import { schedOp, setTimerOp } from './calls/sched.ts'
import { vcpuOp } from './calls/vcpu.ts'
import { hvmMemoryOp } from './hvm/memory.ts'
import { hvmOp } from './hvm/parameters.ts'
import { vmAssist, xenVersion } from './calls/version.ts'

export interface Hypercall {
  readonly number: number
  readonly name: string
  /** Of paravirtual guests. */
  readonly pv: Handler
  /** Of guests with memory and interrupts of their own. */
  readonly hvm: Handler
}

const denied: Handler = () => fail('EPERM')
const absent: Handler = () => fail('ENOSYS')

/** Without a second handler: of paravirtual guests alone. */
const ROWS: readonly [number: number, name: string, pv: Handler, hvm?: Handler][] = [
  [0, 'set_trap_table', setTrapTable],
  [1, 'mmu_update', mmuUpdate],
  [2, 'set_gdt', setGdt],
  [3, 'stack_switch', stackSwitch],
  [4, 'set_callbacks', setCallbacks],
  [5, 'fpu_taskswitch', fpuTaskswitch],
  [7, 'platform_op', denied, denied],
  [8, 'set_debugreg', setDebugreg],
  [9, 'get_debugreg', getDebugreg],
  [10, 'update_descriptor', updateDescriptor],
  [12, 'memory_op', memoryOp, hvmMemoryOp],
  [13, 'multicall', multicall, multicall],
  [14, 'update_va_mapping', updateVaMapping],
  [15, 'set_timer_op', setTimerOp, setTimerOp],
  [17, 'xen_version', xenVersion, xenVersion],
  [18, 'console_io', consoleIo, consoleIo],
  [20, 'grant_table_op', grantTableOp, grantTableOp],
  [21, 'vm_assist', vmAssist, vmAssist],
  [23, 'iret', iret],
  [24, 'vcpu_op', vcpuOp, vcpuOp],
  [25, 'set_segment_base', setSegmentBase],
  [26, 'mmuext_op', mmuextOp],
  [27, 'xsm_op', absent],
  [28, 'nmi_op', nmiOp],
  [29, 'sched_op', schedOp, schedOp],
  [30, 'callback_op', callbackOp],
  [31, 'xenoprof_op', absent],
  [32, 'event_channel_op', eventChannelOp, eventChannelOp],
  [33, 'physdev_op', physdevOp],
  [34, 'hvm_op', absent, hvmOp],
  [35, 'sysctl', denied, denied],
  [36, 'domctl', denied, denied],
  [37, 'kexec_op', denied],
  [38, 'tmem_op', absent],
  [39, 'argo_op', absent],
  [40, 'xenpmu_op', absent],
]
export const HYPERCALLS: ReadonlyMap<number, Hypercall> = new Map(
  ROWS.map(([number, name, pv, hvm = absent]) => [number, { number, name, pv, hvm }]),
)
/** `iret` ends a multicall, as it ends the call that it is. (XSA-213) */
export const RETURN = 23n

export type Count = (row: Hypercall, operation: number) => void

export function dispatch(call: Call, number: bigint, count: Count): number {
  counting = count
  return one(call, number)
}
let counting: Count = () => {}

function one(call: Call, number: bigint): number {
  const row = number < 64n ? HYPERCALLS.get(Number(number)) : undefined
  if (!row) return fail('ENOSYS')
  counting(row, Number(BigInt.asUintN(6, call.args[0]!)))
  return (call.domain.tables ? row.pv : row.hvm)(call)
}

const ENTRY_BYTES = 64n
/** Entries before the guest's own events get a chance. */
const PIECE = 512

/** (list, count). Each entry: number, result, six arguments. */
function multicall(call: Call): number {
  if (call.inMulticall) return fail('EINVAL')
  const list = call.args[0]!
  const total = call.u32(1)
  call.inMulticall = true
  try {
    for (let done = 0; done < total; done++) {
      const at = list + BigInt(done) * ENTRY_BYTES
      if (done === PIECE) return call.again(at, BigInt(total - done))
      const entry = call.read(at, Number(ENTRY_BYTES))
      if (!entry) return fail('EFAULT')
      for (let n = 0; n < 6; n++) call.args[n] = entry.getBigUint64(16 + n * 8, true)
      const number = entry.getBigUint64(0, true)
      const result = one(call, number)
      if (number === RETURN && result === NO_RESULT) return result
      if (result === AGAIN) {
        // The rest of this entry, then those that follow.
        for (let n = 0; n < 6; n++) entry.setBigUint64(16 + n * 8, call.args[n]!, true)
        return call.write(at, entry) ? call.again(at, BigInt(total - done)) : fail('EFAULT')
      }
      if (!call.writeU64(at + 8n, BigInt(result))) return fail('EFAULT')
    }
    return 0
  } finally {
    call.inMulticall = false
  }
}
