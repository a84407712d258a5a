/** What the devices of one VM are offered of the host machine. */

import { FRAME_SIZE, HOST_MMIO, NonrootError } from '@nonroot/contracts'
import type { Assignment, GuestFrames, HostFunction, HostFunctionInfo, HostInterrupt } from '@nonroot/contracts'
import type { HostInterrupts } from './interrupts.ts'

/** Guest-physical pages that lead to the host's bus. */
export interface RegisterPages {
  mapRegisters(address: number, hostAddress: number, length: number): void
  unmapRegisters(address: number, length: number): void
}

/** The VM's own bus, where devices of the machine have addresses already. */
export interface AddressesInUse {
  isFree(address: number, length: number): boolean
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
  readonly #addresses: AddressesInUse

  constructor(machine: AssignmentSource, vm: string, frames: GuestFrames & RegisterPages, addresses: AddressesInUse) {
    this.#machine = machine
    this.#vm = vm
    this.frames = frames
    this.#addresses = addresses
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
    if (!inWindow || [address, hostAddress, length].some((value) => value % FRAME_SIZE !== 0)) {
      throw new NonrootError({
        code: 'internal',
        message: `registers at 0x${hostAddress.toString(16)} + ${length} are not whole pages of the host's bus`,
      })
    }
    // As on the VM's own bus: where two devices claim an address, the earlier claim wins.
    const mapped: number[] = []
    for (let page = address; page < address + length; page += FRAME_SIZE) {
      if (!this.#addresses.isFree(page, FRAME_SIZE)) continue
      this.frames.mapRegisters(page, hostAddress + page - address, FRAME_SIZE)
      mapped.push(page)
    }
    return () => mapped.forEach((page) => this.frames.unmapRegisters(page, FRAME_SIZE))
  }

  interrupt(handler: () => void): HostInterrupt {
    return this.#machine.interrupts.allocate(handler)
  }
}
