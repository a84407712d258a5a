/** @hot The VM-execution controls of the current VMCS as plain words: read once after each change, used at every intercept. */

import { VECTOR } from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import { ProcessorControl, SecondaryControl } from '../tables/controls.ts'
import type { Vmcs } from '../vmcs/vmcs.ts'
import type { PauseLoop } from './pause-loop.ts'

export class ControlCache {
  pin = 0
  processor = 0
  secondary = 0
  /** Vectors whose exceptions exit. */
  exceptions = 0
  pageFaultMask = 0
  pageFaultMatch = 0
  cr0Mask = 0
  cr4Mask = 0
  cr3Targets: readonly bigint[] = []
  ioBitmapA = 0
  ioBitmapB = 0
  msrBitmap = 0
  readonly pauseLoop: PauseLoop

  constructor(pauseLoop: PauseLoop) {
    this.pauseLoop = pauseLoop
  }

  refresh(vmcs: Vmcs): void {
    this.pin = vmcs.read32('pinControls')
    this.processor = vmcs.read32('processorControls')
    const more = (this.processor & ProcessorControl.activateSecondaryControls) !== 0
    this.secondary = more ? vmcs.read32('secondaryProcessorControls') : 0
    this.exceptions = vmcs.read32('exceptionBitmap')
    this.pageFaultMask = vmcs.read32('pageFaultErrorCodeMask')
    this.pageFaultMatch = vmcs.read32('pageFaultErrorCodeMatch')
    this.cr0Mask = Number(vmcs.read('cr0Mask') & 0xffff_ffffn) | 0
    this.cr4Mask = Number(vmcs.read('cr4Mask') & 0xffff_ffffn) | 0
    const targets = [vmcs.read('cr3Target0'), vmcs.read('cr3Target1'), vmcs.read('cr3Target2'), vmcs.read('cr3Target3')]
    this.cr3Targets = targets.slice(0, vmcs.read32('cr3TargetCount'))
    this.ioBitmapA = Number(vmcs.read('ioBitmapA'))
    this.ioBitmapB = Number(vmcs.read('ioBitmapB'))
    this.msrBitmap = Number(vmcs.read('msrBitmaps'))
    this.pauseLoop.configure(vmcs.read32('pleGap'), vmcs.read32('pleWindow'))
  }

  /** A secondary control without which instructions are undefined, by its name in the processor's rows. */
  enables(control: string): boolean {
    return (this.secondary & SecondaryControl[control as keyof typeof SecondaryControl]) !== 0
  }

  /** PAUSE must call the intercept hook. */
  get pauseMayExit(): boolean {
    return (
      (this.processor & ProcessorControl.pauseExiting) !== 0 ||
      (this.secondary & SecondaryControl.pauseLoopExiting) !== 0
    )
  }

  /** Under a hardware root the hook `walkFault` has already handled page faults. (SDM Vol. 3C, "Exception Bitmap") */
  exceptionExits(core: Core, vector: number, errorCode: number): boolean {
    const named = ((this.exceptions >>> vector) & 1) === 1
    if (vector !== VECTOR.PF) return named
    if (core.paging.hardwareRoot) return false
    return ((errorCode & this.pageFaultMask) >>> 0 === this.pageFaultMatch) === named
  }
}
