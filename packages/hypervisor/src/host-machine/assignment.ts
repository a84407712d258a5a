/** What the devices of one VM are offered of the host machine. */

import { HOST_MMIO, NonrootError } from '@nonroot/contracts'
import type { Assignment, GuestFrames, HostFunction, HostFunctionInfo, HostInterrupt } from '@nonroot/contracts'
import type { HostInterrupts } from './interrupts.ts'

/** Guest-physical pages that lead to the host's bus. */
export interface RegisterPages {
  mapRegisters(address: number, hostAddress: number, length: number): void
  unmapRegisters(address: number, length: number): void
}

/** What the host machine has for all VMs. */
export interface AssignmentSource extends Pick<Assignment, 'bus' | 'memory' | 'iommu'> {
  readonly interrupts: HostInterrupts
  list(): HostFunctionInfo[]
  take(at: string, owner: string): Promise<HostFunction>
}

export class VmAssignment implements Assignment {
  readonly frames: GuestFrames & RegisterPages
  readonly #machine: AssignmentSource
  readonly #vm: string

  constructor(machine: AssignmentSource, vm: string, frames: GuestFrames & RegisterPages) {
    this.#machine = machine
    this.#vm = vm
    this.frames = frames
  }

  get bus() {
    return this.#machine.bus
  }
  get memory() {
    return this.#machine.memory
  }
  get iommu() {
    return this.#machine.iommu
  }
  get functions(): readonly HostFunctionInfo[] {
    return this.#machine.list()
  }

  take(at: string): Promise<HostFunction> {
    return this.#machine.take(at, this.#vm)
  }

  mapRegisters(address: number, hostAddress: number, length: number): () => void {
    const inWindow = hostAddress >= HOST_MMIO.start && hostAddress + length <= HOST_MMIO.start + HOST_MMIO.length
    if (!inWindow || [address, hostAddress, length].some((value) => value % 4096 !== 0)) {
      throw new NonrootError({
        code: 'internal',
        message: `registers at 0x${hostAddress.toString(16)} + ${length} are not whole pages of the host's bus`,
      })
    }
    this.frames.mapRegisters(address, hostAddress, length)
    return () => this.frames.unmapRegisters(address, length)
  }

  interrupt(handler: () => void): HostInterrupt {
    return this.#machine.interrupts.allocate(handler)
  }
}
