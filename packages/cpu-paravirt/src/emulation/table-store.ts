/**
 * A store of the guest kernel to one of its page tables, which it may only read: the processor carries out the one instruction with the entry
 * behind a device, and what it would have written goes through validation. All or nothing: a refused store leaves every register as it was.
 */

import { flushPage, S, updatePaging } from '@nonroot/x86'
import { handleException } from '../exceptions.ts'
import type { Deprivileged } from '../deprivileged.ts'

/** General registers, RIP and flags: what a store may change. */
const REGISTERS = S.cpl

export class TableStore {
  readonly #vcpu: Deprivileged
  readonly #entry = new Uint32Array(2)
  /** Machine address of the entry, and whether each half was written. */
  #machine = 0
  #wrote = 0
  #outside = false
  readonly #saved = new Uint8Array(REGISTERS)

  constructor(vcpu: Deprivileged) {
    this.#vcpu = vcpu
  }

  /** Done, or not: then the fault is the guest's. `machine`: where the entry is. */
  run(address: bigint, machine: number): boolean {
    const vcpu = this.#vcpu
    const { core, surroundings, hooks } = vcpu
    const { view, u8 } = core
    const entry = machine - (machine % 8)
    this.#machine = entry
    this.#entry[0] = view.getUint32(entry, true)
    this.#entry[1] = view.getUint32(entry + 4, true)
    this.#wrote = 0
    this.#outside = false
    this.#saved.set(u8.subarray(core.base, core.base + REGISTERS))

    hooks.tableFrame = Math.floor(machine / 4096)
    hooks.tableLow = Number(BigInt.asIntN(32, address)) & -4096
    hooks.tableHigh = Number(BigInt.asIntN(32, address >> 32n))
    surroundings.onTableRead = (at, size) => this.#read(at, size)
    surroundings.onTableWrite = (at, size, value) => this.#write(at, size, value)
    core.paging.hooksFaults = true
    updatePaging(core)
    flushPage(core, hooks.tableLow, hooks.tableHigh)
    vcpu.stepOnce()
    core.paging.hooksFaults = false
    updatePaging(core)
    flushPage(core, hooks.tableLow, hooks.tableHigh)
    hooks.tableFrame = -1
    surroundings.onTableRead = surroundings.onTableWrite = undefined

    if (hooks.vector >= 0) {
      // Another operand's: it is met before the store.
      u8.set(this.#saved, core.base)
      handleException(vcpu, hooks.take(), hooks.errorCode, 0)
      return true
    }
    if (!this.#outside && this.#wrote) {
      if (vcpu.tables.writeEntry(vcpu.index, entry, this.#entry[0]! | 0, this.#entry[1]! | 0) === 'ok') return true
    }
    u8.set(this.#saved, core.base)
    return false
  }

  #read(at: number, size: number): number {
    const offset = at - this.#machine
    if (offset < 0 || offset + size > 8) {
      // Beside the entry: as it is.
      return size === 4
        ? this.#vcpu.core.view.getUint32(at, true)
        : size === 2
          ? this.#vcpu.core.view.getUint16(at, true)
          : this.#vcpu.core.u8[at]!
    }
    const bytes = new DataView(this.#entry.buffer)
    return size === 4
      ? bytes.getUint32(offset, true)
      : size === 2
        ? bytes.getUint16(offset, true)
        : bytes.getUint8(offset)
  }

  #write(at: number, size: number, value: number): void {
    const offset = at - this.#machine
    if (offset < 0 || offset + size > 8) {
      this.#outside = true
      return
    }
    this.#wrote++
    const bytes = new DataView(this.#entry.buffer)
    if (size === 4) bytes.setUint32(offset, value, true)
    else if (size === 2) bytes.setUint16(offset, value, true)
    else bytes.setUint8(offset, value)
  }
}
