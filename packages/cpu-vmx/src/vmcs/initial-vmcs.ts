/** The VMCS that a vCPU starts with: what exits and what does not. (SDM Vol. 3C, "Preparing a VMCS for Launch") */

import { CR0_64, CR4_64, DEFINED, invariant } from '@nonroot/contracts'
import type { HostMemory } from '@nonroot/contracts'
import {
  allowed,
  EntryControl,
  ExitControl,
  PinControl,
  ProcessorControl,
  SecondaryControl,
} from '../tables/controls.ts'
import { setMsrExits } from '../tables/msr-bitmap.ts'
import type { Vmcs } from './vmcs.ts'

const processor = ProcessorControl
const secondary = SecondaryControl

/** MSRs that concern only the guest. All others exit. (FS, GS, KERNEL_GS bases; SYSENTER and SYSCALL) */
const PASSED_MSRS = [
  0x174, 0x175, 0x176, 0xc000_0081, 0xc000_0082, 0xc000_0083, 0xc000_0084, 0xc000_0100, 0xc000_0101, 0xc000_0102,
]

export function initialiseVmcs(vmcs: Vmcs, host: HostMemory, index: number): void {
  const must = (kind: Parameters<typeof allowed>[0]): number => allowed(kind).mustBeOne
  vmcs.write(
    'pinControls',
    must('pin') | PinControl.externalInterruptExiting | PinControl.nmiExiting | PinControl.virtualNmis,
  )
  vmcs.write(
    'processorControls',
    (must('processor') |
      processor.useTscOffsetting |
      processor.hltExiting |
      processor.mwaitExiting |
      processor.monitorExiting |
      processor.rdpmcExiting |
      processor.unconditionalIoExiting |
      processor.useMsrBitmaps |
      processor.activateSecondaryControls) >>>
      0,
  )
  vmcs.write(
    'secondaryProcessorControls',
    secondary.unrestrictedGuest |
      secondary.enableVpid |
      secondary.enableRdtscp |
      secondary.enableInvpcid |
      secondary.enableXsaves,
  )
  vmcs.write(
    'exitControls',
    (must('exit') | ExitControl.hostAddressSpaceSize | ExitControl.saveEfer | ExitControl.loadEfer) >>> 0,
  )
  vmcs.write('entryControls', must('entry') | EntryControl.loadEfer)
  vmcs.write('vpid', index + 1)
  vmcs.write('vmcsLinkPointer', (1n << 64n) - 1n)
  // Fixed bits belong to the hypervisor; the guest sees the read shadows.
  vmcs.write('cr0Mask', CR0_64.ne)
  vmcs.write('cr4Mask', CR4_64.vmxe)

  const bitmap = host.allocateFrame()
  invariant(bitmap !== undefined, 'no host frame is free for the MSR bitmaps')
  host.bytes.fill(0xff, bitmap, bitmap + 4096)
  for (const msr of PASSED_MSRS) {
    setMsrExits(host.bytes, bitmap, msr, false, false)
    setMsrExits(host.bytes, bitmap, msr, true, false)
  }
  vmcs.write('msrBitmaps', BigInt(bitmap))

  // The host state. The hypervisor is TypeScript, but a VMCS must hold a valid host state.
  vmcs.write('hostCr0', CR0_64.pe | CR0_64.mp | CR0_64.et | CR0_64.ne | CR0_64.wp | CR0_64.pg)
  vmcs.write('hostCr4', CR4_64.pae | CR4_64.vmxe)
  vmcs.write('hostEfer', BigInt(DEFINED.efer))
  vmcs.write('hostCsSelector', 8)
  vmcs.write('hostSsSelector', 0x10)
  vmcs.write('hostTrSelector', 0x18)
}
