/**
 * VMX instructions. In non-root operation they exit at every CPL; CR4.VMXE and CPL are for the hypervisor that handles the exit to judge
 * (cpu-vmx). The rows say encoding and exit. (SDM Vol. 3C, "VMX Instruction Reference".)
 */
import { flags } from './flags.ts'
import { family, row, type RowAttributes, type RowSource } from './row.ts'

/** Success and failure are reported in CF and ZF, the others are cleared. */
const status = flags('', 'OSZAPC')
const unconditional = (reason: string): RowAttributes => ({ flags: status, exit: { reason, when: 'always' } })
/** Exits unless VMCS shadowing lets the access through. */
const shadowed = (reason: string): RowAttributes => ({
  flags: status,
  force64: true,
  exit: { reason, when: 'unlessVmcsShadowing' },
})

export const vmx: readonly RowSource[] = family({ cpuid: 'vmx', notReal: true }, [
  // VMCALL exits at every CPL and, like VMFUNC, in every mode of a guest.
  row('VMCALL', '', 'NP 0F 01 C1', {
    notReal: false,
    flow: 'far',
    flags: status,
    exit: { reason: 'vmcall', when: 'always' },
  }),
  row('VMLAUNCH', '', 'NP 0F 01 C2', { ...unconditional('vmlaunch'), flow: 'far' }),
  row('VMRESUME', '', 'NP 0F 01 C3', { ...unconditional('vmresume'), flow: 'far' }),
  row('VMXOFF', '', 'NP 0F 01 C4', { ...unconditional('vmxoff'), flow: 'serialise' }),
  row('VMFUNC', '', 'NP 0F 01 D4', {
    notReal: false,
    flow: 'serialise',
    exit: { reason: 'vmfunc', when: 'vmFunctionControls' },
  }),
  row('VMPTRLD', 'Mq', 'NP 0F C7 /6', unconditional('vmptrld')),
  row('VMPTRST', 'Mq', 'NP 0F C7 /7', unconditional('vmptrst')),
  row('VMCLEAR', 'Mq', '66 0F C7 /6', unconditional('vmclear')),
  row('VMXON', 'Mq', 'F3 0F C7 /6', { ...unconditional('vmxon'), flow: 'serialise' }),
  row('VMREAD', 'Ey,Gy', 'NP 0F 78 /r', shadowed('vmread')),
  row('VMWRITE', 'Gy,Ey', 'NP 0F 79 /r', shadowed('vmwrite')),
  row('INVEPT', 'Gy,Mx', '66 0F 38 80 /r', { ...unconditional('invept'), force64: true, flow: 'serialise' }),
  row('INVVPID', 'Gy,Mx', '66 0F 38 81 /r', { ...unconditional('invvpid'), force64: true, flow: 'serialise' }),
])
