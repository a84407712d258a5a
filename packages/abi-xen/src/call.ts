/** One hypercall in progress: its arguments, the guest memory that it may access, and its continuation. */

import type { PvVcpu, TableCalls, TableStatus, EventError } from '@nonroot/contracts'
import { invariant } from '@nonroot/contracts'
import { DOMAIN, DOMID_SELF, fail } from './facts.ts'
import type { Domain, DomainVcpu } from './domain.ts'
import { toNumber } from './numbers.ts'

/** A call that went on long enough: it is to be made again, with `Call.again`'s arguments. */
export const AGAIN = Number.MIN_SAFE_INTEGER
/** The call has set all registers itself. */
export const NO_RESULT = AGAIN + 1

/** What every kind of vCPU can do for a call. */
export interface CallVcpu {
  /** Guest memory at linear addresses. False: some of it cannot be reached; bytes before may have been copied. */
  copyIn(address: bigint, into: Uint8Array): boolean
  copyOut(address: bigint, from: Uint8Array): boolean
  /** Until there is something for it. `untilWoken`: whatever the upcall mask says. It may end early. */
  sleep(untilWoken: boolean): void
  yield(): void
}

export class Call {
  readonly domain: Domain
  /** Up to six; those that a call does not take are whatever the guest left there. */
  readonly args: bigint[] = [0n, 0n, 0n, 0n, 0n, 0n]
  vcpu!: DomainVcpu
  cpu!: CallVcpu
  /** Of a paravirtual guest: the same as `cpu`. */
  pv!: PvVcpu
  /** Counts a sub-operation of the call that is being handled. */
  note: (operation: number) => void = () => {}
  inMulticall = false

  constructor(domain: Domain) {
    this.domain = domain
  }

  get tables(): TableCalls {
    const { tables } = this.domain
    invariant(tables, 'the call is one of paravirtual guests')
    return tables
  }

  /** An argument that is a small number: bits 31:0. */
  u32(n: number): number {
    return Number(BigInt.asUintN(32, this.args[n]!))
  }
  /** A frame or machine address. Beyond any machine: a number that no table has. */
  number(n: number): number {
    return toNumber(this.args[n]!)
  }

  /** A structure at a guest address, or undefined: -EFAULT. */
  read(address: bigint, bytes: number): DataView | undefined {
    const buffer = new Uint8Array(bytes)
    return this.cpu.copyIn(address, buffer) ? new DataView(buffer.buffer) : undefined
  }
  write(address: bigint, view: DataView | Uint8Array): boolean {
    return this.cpu.copyOut(
      address,
      view instanceof Uint8Array ? view : new Uint8Array(view.buffer, view.byteOffset, view.byteLength),
    )
  }
  writeU32(address: bigint, value: number): boolean {
    const bytes = new DataView(new ArrayBuffer(4))
    bytes.setUint32(0, value, true)
    return this.write(address, bytes)
  }
  writeU64(address: bigint, value: bigint): boolean {
    const bytes = new DataView(new ArrayBuffer(8))
    bytes.setBigUint64(0, BigInt.asUintN(64, value), true)
    return this.write(address, bytes)
  }

  /** Continue with these arguments: the guest's own interrupts may come in between. */
  again(...args: bigint[]): number {
    args.forEach((value, n) => (this.args[n] = value))
    return AGAIN
  }
}

/** Result: 0 or above, an errno below 0, `AGAIN` or `NO_RESULT`. */
export type Handler = (call: Call) => number

/** A domain's own number, or the word for it: there is no other domain. */
export const isSelf = (domain: number): boolean => domain === DOMID_SELF || domain === DOMAIN

const STATUS: Readonly<Record<TableStatus, number>> = {
  ok: 0,
  invalid: fail('EINVAL'),
  busy: fail('EINVAL'),
  denied: fail('EPERM'),
  noMemory: fail('ENOMEM'),
  unsupported: fail('ENOSYS'),
}
export const statusCode = (status: TableStatus): number => STATUS[status]

const EVENT_ERRORS: Readonly<Record<EventError, number>> = {
  badPort: fail('EINVAL'),
  noSpace: fail('ENOSPC'),
  exists: fail('EEXIST'),
  denied: fail('EPERM'),
  noDomain: fail('ESRCH'),
  badVcpu: fail('ENOENT'),
  invalid: fail('EINVAL'),
}
export const eventCode = (error: EventError | undefined): number => (error === undefined ? 0 : EVENT_ERRORS[error])
