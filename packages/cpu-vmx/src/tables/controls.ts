/** VM-execution, VM-exit and VM-entry controls: bits by name. Facts only. (SDM Vol. 3C, "VM-Execution Control Fields" and the two after it) */

import type { VmcsFieldName } from './vmcs-fields.ts'

/** Asynchronous events. */
export const PinControl = {
  externalInterruptExiting: 1 << 0,
  nmiExiting: 1 << 3,
  virtualNmis: 1 << 5,
  activatePreemptionTimer: 1 << 6,
  processPostedInterrupts: 1 << 7,
} as const

/** Primary processor-based controls. */
export const ProcessorControl = {
  interruptWindowExiting: 1 << 2,
  useTscOffsetting: 1 << 3,
  hltExiting: 1 << 7,
  invlpgExiting: 1 << 9,
  mwaitExiting: 1 << 10,
  rdpmcExiting: 1 << 11,
  rdtscExiting: 1 << 12,
  cr3LoadExiting: 1 << 15,
  cr3StoreExiting: 1 << 16,
  activateTertiaryControls: 1 << 17,
  cr8LoadExiting: 1 << 19,
  cr8StoreExiting: 1 << 20,
  useTprShadow: 1 << 21,
  nmiWindowExiting: 1 << 22,
  movDrExiting: 1 << 23,
  unconditionalIoExiting: 1 << 24,
  useIoBitmaps: 1 << 25,
  monitorTrapFlag: 1 << 27,
  useMsrBitmaps: 1 << 28,
  monitorExiting: 1 << 29,
  pauseExiting: 1 << 30,
  activateSecondaryControls: 1 << 31,
} as const

/** Secondary processor-based controls. */
export const SecondaryControl = {
  virtualizeApicAccesses: 1 << 0,
  enableEpt: 1 << 1,
  descriptorTableExiting: 1 << 2,
  enableRdtscp: 1 << 3,
  virtualizeX2apicMode: 1 << 4,
  enableVpid: 1 << 5,
  wbinvdExiting: 1 << 6,
  unrestrictedGuest: 1 << 7,
  apicRegisterVirtualization: 1 << 8,
  virtualInterruptDelivery: 1 << 9,
  pauseLoopExiting: 1 << 10,
  rdrandExiting: 1 << 11,
  enableInvpcid: 1 << 12,
  enableVmFunctions: 1 << 13,
  vmcsShadowing: 1 << 14,
  enclsExiting: 1 << 15,
  rdseedExiting: 1 << 16,
  enablePml: 1 << 17,
  eptViolationVe: 1 << 18,
  concealVmxFromPt: 1 << 19,
  enableXsaves: 1 << 20,
  pasidTranslation: 1 << 21,
  modeBasedExecuteControl: 1 << 22,
  subPageWritePermissions: 1 << 23,
  ptUsesGuestPhysicalAddresses: 1 << 24,
  useTscScaling: 1 << 25,
  enableUserWaitAndPause: 1 << 26,
  enablePconfig: 1 << 27,
  enclvExiting: 1 << 28,
  vmmBusLockDetection: 1 << 30,
  instructionTimeout: 1 << 31,
} as const

/** Tertiary processor-based controls: a 64-bit field of which no bit above 31 is defined. */
export const TertiaryControl = {
  loadiwkeyExiting: 1 << 0,
  enableHlat: 1 << 1,
  eptPagingWriteControl: 1 << 2,
  guestPagingVerification: 1 << 3,
  ipiVirtualization: 1 << 4,
  virtualizeSpecCtrl: 1 << 7,
} as const

export const ExitControl = {
  saveDebugControls: 1 << 2,
  hostAddressSpaceSize: 1 << 9,
  loadPerfGlobalCtrl: 1 << 12,
  acknowledgeInterruptOnExit: 1 << 15,
  savePat: 1 << 18,
  loadPat: 1 << 19,
  saveEfer: 1 << 20,
  loadEfer: 1 << 21,
  savePreemptionTimer: 1 << 22,
  clearBndcfgs: 1 << 23,
  concealVmxFromPt: 1 << 24,
  clearRtitCtl: 1 << 25,
  clearLbrCtl: 1 << 26,
  clearUinv: 1 << 27,
  loadCetState: 1 << 28,
  loadPkrs: 1 << 29,
  savePerfGlobalCtrl: 1 << 30,
  activateSecondaryControls: 1 << 31,
} as const

export const EntryControl = {
  loadDebugControls: 1 << 2,
  ia32eModeGuest: 1 << 9,
  entryToSmm: 1 << 10,
  deactivateDualMonitor: 1 << 11,
  loadPerfGlobalCtrl: 1 << 13,
  loadPat: 1 << 14,
  loadEfer: 1 << 15,
  loadBndcfgs: 1 << 16,
  concealVmxFromPt: 1 << 17,
  loadRtitCtl: 1 << 18,
  loadUinv: 1 << 19,
  loadCetState: 1 << 20,
  loadLbrCtl: 1 << 21,
  loadPkrs: 1 << 22,
} as const

export type PinControlName = keyof typeof PinControl
export type ProcessorControlName = keyof typeof ProcessorControl
export type SecondaryControlName = keyof typeof SecondaryControl
export type TertiaryControlName = keyof typeof TertiaryControl

export interface ControlWord {
  readonly field: VmcsFieldName
  /** Reserved bits that are 1 (the "default1 class"). (SDM Vol. 3D, "Reserved Controls and Default Settings") */
  readonly default1: number
  /** Bits of `default1` that may be 0 by the IA32_VMX_TRUE MSRs. */
  readonly trulyOptional: number
  /** What this processor implements. */
  readonly implemented: number
}

const pin = PinControl
const cpu = ProcessorControl
const second = SecondaryControl
const exit = ExitControl
const entry = EntryControl

/** Exactly what is implemented: the capability MSRs are derived from it. An addition needs entry checks, handlers and tests. */
export const CONTROLS = {
  pin: {
    field: 'pinControls',
    default1: 0x0000_0016,
    trulyOptional: 0,
    implemented: pin.externalInterruptExiting | pin.nmiExiting | pin.virtualNmis | pin.activatePreemptionTimer,
  },
  processor: {
    field: 'processorControls',
    default1: 0x0401_e172,
    trulyOptional: cpu.cr3LoadExiting | cpu.cr3StoreExiting,
    implemented:
      cpu.interruptWindowExiting |
      cpu.useTscOffsetting |
      cpu.hltExiting |
      cpu.invlpgExiting |
      cpu.mwaitExiting |
      cpu.rdpmcExiting |
      cpu.rdtscExiting |
      cpu.cr3LoadExiting |
      cpu.cr3StoreExiting |
      cpu.cr8LoadExiting |
      cpu.cr8StoreExiting |
      cpu.nmiWindowExiting |
      cpu.movDrExiting |
      cpu.useTprShadow |
      cpu.unconditionalIoExiting |
      cpu.useIoBitmaps |
      cpu.monitorTrapFlag |
      cpu.useMsrBitmaps |
      cpu.monitorExiting |
      cpu.pauseExiting |
      cpu.activateSecondaryControls,
  },
  secondary: {
    field: 'secondaryProcessorControls',
    default1: 0,
    trulyOptional: 0,
    implemented:
      second.enableEpt |
      second.descriptorTableExiting |
      second.enableRdtscp |
      second.virtualizeX2apicMode |
      second.enableVpid |
      second.wbinvdExiting |
      second.unrestrictedGuest |
      second.pauseLoopExiting |
      second.rdrandExiting |
      second.enableInvpcid |
      second.rdseedExiting |
      second.enablePml |
      second.enableXsaves |
      second.useTscScaling,
  },
  tertiary: { field: 'tertiaryProcessorControls', default1: 0, trulyOptional: 0, implemented: 0 },
  exit: {
    field: 'exitControls',
    default1: 0x0003_6dff,
    trulyOptional: exit.saveDebugControls,
    implemented:
      exit.saveDebugControls |
      exit.hostAddressSpaceSize |
      exit.acknowledgeInterruptOnExit |
      exit.savePat |
      exit.loadPat |
      exit.saveEfer |
      exit.loadEfer |
      exit.savePreemptionTimer,
  },
  entry: {
    field: 'entryControls',
    default1: 0x0000_11ff,
    trulyOptional: entry.loadDebugControls,
    implemented: entry.loadDebugControls | entry.ia32eModeGuest | entry.loadPat | entry.loadEfer,
  },
} as const satisfies Readonly<Record<string, ControlWord>>
export type ControlKind = keyof typeof CONTROLS

/** Settings that entry accepts: bits that must be 1, and bits that may be. */
export const allowed = (kind: ControlKind): { mustBeOne: number; mayBeOne: number } => {
  const { default1, trulyOptional, implemented } = CONTROLS[kind]
  return { mustBeOne: (default1 & ~trulyOptional) >>> 0, mayBeOne: (default1 | implemented) >>> 0 }
}
