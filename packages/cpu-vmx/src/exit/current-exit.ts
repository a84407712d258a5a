/** @hot The exit being handled: what its handler needs beside the exit-information fields. */

import type { Core, SwitchOptions, TaskSwitchSource } from '@nonroot/x86'

export interface TaskSwitchRequest {
  readonly selector: number
  readonly source: TaskSwitchSource
  readonly options: SwitchOptions
}

export class CurrentExit {
  /** Low half of the qualification. */
  qualification = 0
  /** Guest-physical address of an EPT violation or misconfiguration. */
  physical = 0
  /** The page fault was caused by the hypervisor's own tables; the guest does not see it. */
  isHidden = false
  taskSwitch: TaskSwitchRequest | undefined
  /** The guest's MOV to CR3 has bit 63 set. */
  keepsTranslations = false
  private rootWritten = false
  private readonly words = new Uint32Array(2)
  private readonly wide = new BigUint64Array(this.words.buffer)

  /** Linear address of a hidden page fault. */
  get linear(): bigint {
    return this.wide[0]!
  }
  setLinear(low: number, high: number): void {
    this.words[0] = low
    this.words[1] = high
  }

  /** MOV to CR3 will be executed next; its value is in argument 1. */
  expectRootWrite(expected: boolean, core: Core): void {
    this.rootWritten = expected
    this.keepsTranslations = expected && core.arg(1) >> 63n === 1n
  }
  takeRootWrite(): boolean {
    const { rootWritten } = this
    this.rootWritten = false
    return rootWritten
  }
}
