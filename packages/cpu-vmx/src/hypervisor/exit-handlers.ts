/**
 * What the hypervisor does at each exit. One handler a reason, total by type. The interpreter is the only emulator: `PROCEED` lets the
 * processor carry out the instruction that exited, with what surrounds it answered by the VM's roles (surroundings.ts).
 */

import type { Gpa, Gva, PagingOutcome } from '@nonroot/contracts'
import { EXIT, LEFT, NEXT, PROCEED, S, switchTask } from '@nonroot/x86'
import type { SwitchOptions, TaskSwitchSource } from '@nonroot/x86'
import { ProcessorControl } from '../tables/controls.ts'
import type { ExitReasonName } from '../tables/exit-reasons.ts'
import type { VmxVcpu } from '../vcpu.ts'
import { vmxInstruction } from './vmx-instructions.ts'

/** Results beyond the processor's own: of exits that a memory access causes. */
export const RETRY = 3
export const DEVICE = 4
/** The fault is the guest's: its code is in the paging state. */
export const GUEST_FAULT = 5
export type ExitResult =
  typeof PROCEED | typeof NEXT | typeof LEFT | typeof RETRY | typeof DEVICE | typeof GUEST_FAULT | 2

export type ExitHandler = (vcpu: VmxVcpu) => ExitResult

const UNDEFINED_OPCODE = 6
const proceed: ExitHandler = () => PROCEED
/** The guest is told that there is no such instruction. */
const undefinedOpcode: ExitHandler = ({ core }) => core.raise(UNDEFINED_OPCODE)
/** Its control is not among those implemented, so that no entry can have set it. */
const notImplemented =
  (reason: ExitReasonName): ExitHandler =>
  (vcpu) =>
    vcpu.fail(`exit '${reason}', whose control is not implemented`)

const hypercall: ExitHandler = (vcpu) => {
  switch (vcpu.ports.abi.hypercall(vcpu.abiVcpu)) {
    case 'done':
      return NEXT
    case 'unknown':
      return undefinedOpcode(vcpu)
    case 'exit':
      return vcpu.leaveForHypercall()
  }
}

/** What a paging strategy decided, for the access that waits. */
function settle(vcpu: VmxVcpu, outcome: PagingOutcome, address: number): ExitResult {
  switch (outcome.next) {
    case 'resume':
      return RETRY
    case 'mmio':
      vcpu.core.paging.frame = Math.floor(outcome.address / 4096)
      return DEVICE
    case 'inject':
      vcpu.core.paging.errorCode = outcome.code
      return GUEST_FAULT
    case 'emulate': {
      // The access goes to guest memory past the hardware's tables; writes are told to the strategy (Surroundings).
      const physical = address >= 0 ? address : vcpu.translate(vcpu.current.linear)
      if (physical === undefined) return vcpu.fail('an access to be emulated has no translation')
      vcpu.core.paging.frame = Math.floor(physical / 4096)
      return DEVICE
    }
    case 'failure':
      return vcpu.fail(outcome.message)
  }
}

const eptViolation: ExitHandler = (vcpu) =>
  settle(
    vcpu,
    vcpu.ports.paging.onSecondStageFault(vcpu.pagingPort, vcpu.current.physical as Gpa, vcpu.current.qualification & 7),
    vcpu.current.physical,
  )

/** A page fault under a hardware root is the paging strategy's. Every other exception that the bitmap names is given back to the guest. */
const exceptionOrNmi: ExitHandler = (vcpu) => {
  if (!vcpu.current.isHidden) return PROCEED
  const { pagingPort, current, core } = vcpu
  return settle(vcpu, vcpu.ports.paging.onPageFault(pagingPort, current.linear as Gva, core.paging.errorCode), -1)
}

const endWindow =
  (control: number): ExitHandler =>
  (vcpu) => {
    vcpu.setProcessorControl(control, false)
    return PROCEED
  }

const invlpg: ExitHandler = (vcpu) => {
  const outcome = vcpu.ports.paging.onInvalidate(vcpu.pagingPort, vcpu.core.arg(0) as Gva)
  return outcome.next === 'failure' ? vcpu.fail(outcome.message) : PROCEED
}
/** Which address spaces it names is not told apart: all are brought up to date. */
const invpcid: ExitHandler = (vcpu) => {
  const outcome = vcpu.ports.paging.onInvalidate(vcpu.pagingPort, undefined)
  return outcome.next === 'failure' ? vcpu.fail(outcome.message) : PROCEED
}

/** Only writes of CR3 that exit are the guest's root writes: even of the value that is there. The strategy hears through `pagingChanged`. */
const crAccess: ExitHandler = (vcpu) => {
  vcpu.current.expectRootWrite((vcpu.current.qualification & 0x3f) === 3, vcpu.core)
  return PROCEED
}

const taskSwitch: ExitHandler = (vcpu) => {
  const { selector, source, options } = vcpu.current.taskSwitch!
  return switchTask(vcpu.core, selector, source, { ...options, emulated: true }) ? LEFT : NEXT
}

const tripleFault: ExitHandler = (vcpu) => {
  vcpu.core.set32(S.exit, EXIT.stop)
  vcpu.shutdown()
  return LEFT
}

/** The hypervisor has no use for the timer: it runs as long as it can. Whoever activates it brings a handler. */
const LONGEST = 0xffff_ffff
const preemptionTimer: ExitHandler = (vcpu) => {
  vcpu.vmcs.write32('preemptionTimer', LONGEST)
  return PROCEED
}

/** A spinning guest gives its slice to the others. */
const pause: ExitHandler = (vcpu) => {
  vcpu.kick()
  return PROCEED
}

/** An interrupt of the guest's may come in now. The threshold is set anew by whoever keeps it. */
const tprBelowThreshold: ExitHandler = (vcpu) => {
  vcpu.vmcs.write('tprThreshold', 0)
  return PROCEED
}

/** What was logged is dirty: guest memory keeps the dirty log. */
const pageModificationLogFull: ExitHandler = (vcpu) => {
  for (const page of vcpu.modificationLog.drain()) vcpu.ports.guestMemory.translate(Number(page), 'write')
  return RETRY
}

export interface TaskSwitchRequest {
  readonly selector: number
  readonly source: TaskSwitchSource
  readonly options: SwitchOptions
}

export type ExitHandlers = Readonly<Record<ExitReasonName, ExitHandler>>

export const HANDLERS: ExitHandlers = {
  exceptionOrNmi,
  // The host's interrupts end the slice: whoever kicked finds the vCPU outside.
  externalInterrupt: proceed,
  tripleFault,
  init: proceed,
  startup: proceed,
  ioSmi: notImplemented('ioSmi'),
  otherSmi: notImplemented('otherSmi'),
  interruptWindow: endWindow(ProcessorControl.interruptWindowExiting),
  nmiWindow: endWindow(ProcessorControl.nmiWindowExiting),
  taskSwitch,
  cpuid: proceed,
  getsec: undefinedOpcode,
  hlt: proceed,
  invd: proceed,
  invlpg,
  rdpmc: proceed,
  rdtsc: proceed,
  rsm: undefinedOpcode,
  vmcall: hypercall,
  vmclear: vmxInstruction,
  vmlaunch: vmxInstruction,
  vmptrld: vmxInstruction,
  vmptrst: vmxInstruction,
  vmread: vmxInstruction,
  vmresume: vmxInstruction,
  vmwrite: vmxInstruction,
  vmxoff: vmxInstruction,
  vmxon: vmxInstruction,
  crAccess,
  movDr: proceed,
  ioInstruction: proceed,
  rdmsr: proceed,
  wrmsr: proceed,
  entryFailureGuestState: (vcpu) => vcpu.fail('VM entry failed by guest state'),
  entryFailureMsrLoading: (vcpu) => vcpu.fail('VM entry failed loading MSRs'),
  mwait: proceed,
  monitorTrapFlag: proceed,
  monitor: proceed,
  pause,
  entryFailureMachineCheck: notImplemented('entryFailureMachineCheck'),
  tprBelowThreshold,
  apicAccess: notImplemented('apicAccess'),
  virtualizedEoi: notImplemented('virtualizedEoi'),
  gdtrIdtrAccess: proceed,
  ldtrTrAccess: proceed,
  eptViolation,
  eptMisconfiguration: (vcpu) =>
    vcpu.fail(`EPT misconfiguration at guest-physical ${vcpu.current.physical.toString(16)}`),
  invept: vmxInstruction,
  rdtscp: proceed,
  preemptionTimer,
  invvpid: vmxInstruction,
  wbinvd: proceed,
  xsetbv: proceed,
  apicWrite: notImplemented('apicWrite'),
  rdrand: proceed,
  invpcid,
  vmfunc: undefinedOpcode,
  encls: undefinedOpcode,
  rdseed: proceed,
  pageModificationLogFull,
  xsaves: proceed,
  xrstors: proceed,
  pconfig: notImplemented('pconfig'),
  subPagePermission: notImplemented('subPagePermission'),
  umwait: undefinedOpcode,
  tpause: undefinedOpcode,
  loadiwkey: notImplemented('loadiwkey'),
  enclv: undefinedOpcode,
  enqcmdPasid: notImplemented('enqcmdPasid'),
  enqcmdsPasid: notImplemented('enqcmdsPasid'),
  busLock: notImplemented('busLock'),
  instructionTimeout: notImplemented('instructionTimeout'),
  seamcall: undefinedOpcode,
  tdcall: undefinedOpcode,
  rdmsrlist: undefinedOpcode,
  wrmsrlist: undefinedOpcode,
}
