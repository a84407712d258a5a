/**
 * What the hypervisor does at each exit: one handler for each reason, which the type enforces. The interpreter is the only emulator: `PROCEED` makes
 * the processor execute the instruction that exited, with the VM's roles on its bus (bus.ts).
 */

import type { Gpa, Gva, PagingOutcome } from '@nonroot/contracts'
import { EXIT, LEFT, NEXT, PROCEED, S, switchTask } from '@nonroot/x86'
import { ProcessorControl } from '../tables/controls.ts'
import type { ExitReasonName } from '../tables/exit-reasons.ts'
import {
  DEVICE,
  GUEST_FAULT,
  RETRY,
  type ExitHandler,
  type ExitHandlers,
  type ExitResult,
} from '../exit/exit-handler.ts'
import type { VmxGuest } from '../guest.ts'
import { vmxInstruction } from './vmx-instructions.ts'

const UNDEFINED_OPCODE = 6
const proceed: ExitHandler = () => PROCEED
/** The guest gets #UD. */
const undefinedOpcode: ExitHandler = ({ core }) => core.raise(UNDEFINED_OPCODE)
/** The control is not implemented, so no entry can have set it. */
const notImplemented =
  (reason: ExitReasonName): ExitHandler =>
  (guest) =>
    guest.fail(`exit '${reason}', whose control is not implemented`)

const hypercall: ExitHandler = (guest) => {
  switch (guest.ports.abi.hypercall(guest.abiVcpu)) {
    case 'done':
      return NEXT
    case 'again':
      return guest.leave()
    case 'yield':
      guest.kick()
      return NEXT
    case 'halt':
      return guest.halt()
    case 'unknown':
      return undefinedOpcode(guest)
    case 'exit':
      return guest.leaveForHypercall()
  }
}

/** Applies the paging strategy's decision to the access that faulted. */
function settle(guest: VmxGuest, outcome: PagingOutcome, address: number): ExitResult {
  switch (outcome.next) {
    case 'resume':
      return RETRY
    case 'mmio':
      guest.core.paging.frame = Math.floor(outcome.address / 4096)
      return DEVICE
    case 'inject':
      guest.core.paging.errorCode = outcome.code
      return GUEST_FAULT
    case 'emulate': {
      // The access bypasses the hardware's tables; the strategy is notified of writes (ProcessorBus).
      const physical = address >= 0 ? address : guest.translate(guest.current.linear)
      if (physical === undefined) return guest.fail('an access to be emulated has no translation')
      guest.core.paging.frame = Math.floor(physical / 4096)
      return DEVICE
    }
    case 'wait':
      return guest.leaveForMemory(outcome.address)
    case 'failure':
      return guest.fail(outcome.message)
  }
}

const eptViolation: ExitHandler = (guest) =>
  settle(
    guest,
    guest.ports.paging.onSecondStageFault(
      guest.pagingPort,
      guest.current.physical as Gpa,
      guest.current.qualification & 7,
    ),
    guest.current.physical,
  )

/** The paging strategy handles page faults under a hardware root. Every other exception in the bitmap is delivered to the guest. */
const exceptionOrNmi: ExitHandler = (guest) => {
  if (!guest.current.isHidden) return PROCEED
  const { pagingPort, current, core } = guest
  return settle(guest, guest.ports.paging.onPageFault(pagingPort, current.linear as Gva, core.paging.errorCode), -1)
}

const endWindow =
  (control: number): ExitHandler =>
  (guest) => {
    guest.setProcessorControl(control, false)
    return PROCEED
  }

const invlpg: ExitHandler = (guest) => {
  const outcome = guest.ports.paging.onInvalidate(guest.pagingPort, guest.core.arg(0) as Gva)
  return outcome.next === 'failure' ? guest.fail(outcome.message) : PROCEED
}
/** All address spaces are synchronised, whichever it names. */
const invpcid: ExitHandler = (guest) => {
  const outcome = guest.ports.paging.onInvalidate(guest.pagingPort, undefined)
  return outcome.next === 'failure' ? guest.fail(outcome.message) : PROCEED
}

/** Only writes of CR3 that exit count as root writes, even if the value is unchanged. The strategy is notified by the hook `pagingChanged`. */
const crAccess: ExitHandler = (guest) => {
  guest.current.expectRootWrite((guest.current.qualification & 0x3f) === 3, guest.core)
  return PROCEED
}

const taskSwitch: ExitHandler = (guest) => {
  const { selector, source, options } = guest.current.taskSwitch!
  return switchTask(guest.core, selector, source, { ...options, emulated: true }) ? LEFT : NEXT
}

const tripleFault: ExitHandler = (guest) => {
  guest.core.set32(S.exit, EXIT.stop)
  guest.shutdown()
  return LEFT
}

/** The hypervisor does not use the timer: it is set as late as possible. Code that activates it supplies a handler. */
const LONGEST = 0xffff_ffff
const preemptionTimer: ExitHandler = (guest) => {
  guest.vmcs.write32('preemptionTimer', LONGEST)
  return PROCEED
}

/** A spinning guest yields its slice. */
const pause: ExitHandler = (guest) => {
  guest.kick()
  return PROCEED
}

/** The guest may accept an interrupt now. Code that uses the threshold sets it again. */
const tprBelowThreshold: ExitHandler = (guest) => {
  guest.vmcs.write('tprThreshold', 0)
  return PROCEED
}

/** Logged pages are marked dirty in guest memory, which keeps the dirty log. */
const pageModificationLogFull: ExitHandler = (guest) => {
  for (const page of guest.modificationLog.drain()) guest.ports.guestFrames.translate(Number(page), 'write')
  return RETRY
}

export const HANDLERS: ExitHandlers = {
  exceptionOrNmi,
  // The host's interrupts end the slice.
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
  entryFailureGuestState: (guest) => guest.fail('VM entry failed by guest state'),
  entryFailureMsrLoading: (guest) => guest.fail('VM entry failed loading MSRs'),
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
  eptMisconfiguration: (guest) =>
    guest.fail(`EPT misconfiguration at guest-physical ${guest.current.physical.toString(16)}`),
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
