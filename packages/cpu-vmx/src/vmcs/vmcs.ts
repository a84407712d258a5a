/**
 * A VMCS region in a host frame, read and written by field name. Defines the format, not the meaning of fields. (SDM Vol. 3C, "Virtual-Machine
 * Control Structures")
 */

import { FRAME_SIZE, invariant } from '@nonroot/contracts'
import type { HostMemory, Hpa } from '@nonroot/contracts'
import {
  VMCS_FIELDS,
  VMCS_HEADER,
  VMCS_REVISION,
  type VmcsFieldName,
  type VmcsFieldOf,
  type VmcsFieldValue,
} from '../tables/vmcs-fields.ts'

/**
 * ```
 *           VMLAUNCH            VMCLEAR
 *   clear ───────────► launched ───────► clear
 * ```
 */
export type LaunchState = 'clear' | 'launched'

/**
 * Guest-state fields of a running VMCS are kept in the processor: reads and writes of these go there. (SDM: the region of an active VMCS need not be
 * up to date.)
 */
export interface ResidentFields {
  /** Value, or undefined when the field is not resident. */
  read(name: VmcsFieldName): bigint | undefined
  /** False: not resident. */
  write(name: VmcsFieldName, value: bigint): boolean
}

export class Vmcs {
  readonly address: Hpa
  /** Set while a processor holds the guest-state fields. */
  resident: ResidentFields | undefined
  /** Incremented by every write by name: entry repeats its checks only if it has changed. */
  generation = 0
  private readonly host: HostMemory
  private readonly view: DataView

  constructor(host: HostMemory, address: Hpa) {
    this.host = host
    this.view = host.view
    this.address = address
  }

  /** Allocates a zeroed region, with our revision, in a frame of its own. */
  static create(host: HostMemory): Vmcs {
    const frame = host.allocateFrame()
    invariant(frame !== undefined, 'no host frame is free for a VMCS')
    const vmcs = new Vmcs(host, frame)
    vmcs.view.setUint32(frame + VMCS_HEADER.revision, VMCS_REVISION, true)
    return vmcs
  }

  get revision(): number {
    return this.view.getUint32(this.address + VMCS_HEADER.revision, true)
  }
  get launchState(): LaunchState {
    return this.view.getUint32(this.address + VMCS_HEADER.launchState, true) === 0 ? 'clear' : 'launched'
  }
  set launchState(state: LaunchState) {
    this.view.setUint32(this.address + VMCS_HEADER.launchState, state === 'clear' ? 0 : 1, true)
  }

  read<N extends VmcsFieldName>(name: N): VmcsFieldValue<N> {
    const { width } = VMCS_FIELDS[name]
    const resident = this.resident?.read(name)
    const value = resident ?? this.stored(name)
    return (width === 16 || width === 32 ? Number(value) : value) as VmcsFieldValue<N>
  }

  write<N extends VmcsFieldName>(name: N, value: VmcsFieldValue<N>): void {
    this.generation++
    const bits = BigInt(value)
    if (this.resident?.write(name, bits)) return
    this.store(name, bits)
  }

  /** The value in the region, even if the field is resident. */
  stored(name: VmcsFieldName): bigint {
    const { width, offset } = VMCS_FIELDS[name]
    const at = this.address + offset
    if (width === 16) return BigInt(this.view.getUint16(at, true))
    if (width === 32) return BigInt(this.view.getUint32(at, true))
    return this.view.getBigUint64(at, true)
  }
  store(name: VmcsFieldName, value: bigint): void {
    const { width, offset } = VMCS_FIELDS[name]
    const at = this.address + offset
    if (width === 16) this.view.setUint16(at, Number(BigInt.asUintN(16, value)), true)
    else if (width === 32) this.view.setUint32(at, Number(BigInt.asUintN(32, value)), true)
    else this.view.setBigUint64(at, BigInt.asUintN(64, value), true)
  }

  /** @hot A control or exit-information field that is never resident, without BigInt: its low 32 bits, unsigned. */
  read32(name: VmcsFieldName): number {
    return this.view.getUint32(this.address + VMCS_FIELDS[name].offset, true)
  }
  /** @hot */
  write32(name: VmcsFieldOf<32>, value: number): void {
    this.view.setUint32(this.address + VMCS_FIELDS[name].offset, value, true)
  }
  /** @hot An exit-information field of 64 bits or natural width, from two halves. */
  writeHalves(name: VmcsFieldOf<64 | 'natural'>, low: number, high: number): void {
    const at = this.address + VMCS_FIELDS[name].offset
    this.view.setUint32(at, low, true)
    this.view.setUint32(at + 4, high, true)
  }

  has(name: VmcsFieldOf<32>, bits: number): boolean {
    return (this.read32(name) & bits) !== 0
  }

  /** Every field of the region, as bytes. */
  save(): Uint8Array {
    return this.host.bytes.slice(this.address, this.address + FRAME_SIZE)
  }
  restore(bytes: Uint8Array): void {
    this.host.bytes.set(bytes.subarray(0, FRAME_SIZE), this.address)
    this.generation++
  }

  dispose(): void {
    this.host.freeFrame(this.address)
  }
}
