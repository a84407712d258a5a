/** A vCPU with memory of its own, as hypercalls use it. */

import type { GuestAbiVcpu, GuestMemory, HypercallResult } from '@nonroot/contracts'
import type { CallVcpu } from '../call.ts'

const PAGE = 4096

export class HvmCallVcpu implements CallVcpu {
  /** What the call that is being made asks of the vCPU. */
  wanted: HypercallResult = 'done'
  readonly #memory: GuestMemory
  #vcpu: GuestAbiVcpu | undefined

  constructor(memory: GuestMemory) {
    this.#memory = memory
  }

  begin(vcpu: GuestAbiVcpu): void {
    this.#vcpu = vcpu
    this.wanted = 'done'
  }

  copyIn(address: bigint, into: Uint8Array): boolean {
    return this.#each(address, into.length, (at, start, end) => this.#memory.readBytes(at, into.subarray(start, end)))
  }
  copyOut(address: bigint, from: Uint8Array): boolean {
    return this.#each(address, from.length, (at, start, end) => this.#memory.writeBytes(at, from.subarray(start, end)))
  }

  #each(address: bigint, length: number, copy: (at: number, start: number, end: number) => boolean): boolean {
    for (let done = 0; done < length;) {
      const linear = BigInt.asUintN(64, address + BigInt(done))
      const at = this.#vcpu!.translate(linear)
      if (at === undefined) return false
      const end = Math.min(length, done + PAGE - (at % PAGE))
      if (!copy(at, done, end)) return false
      done = end
    }
    return true
  }

  /** A poll may end early, and does: who waits looks again. */
  sleep(untilWoken: boolean): void {
    this.wanted = untilWoken ? 'yield' : 'halt'
  }
  yield(): void {
    this.wanted = 'yield'
  }
}
