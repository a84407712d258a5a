/** Event channels as guest ABI and back ends see them: ports of one domain, and what is behind each. */

import type { Gpa, Hpa } from '../base/address.ts'
import { token } from '../base/token.ts'
import type { InterruptLine } from '../devices/interrupts.ts'
import type { PciFunction } from '../devices/pci.ts'

/** `badPort`: no such port, or in no such state. `noSpace`: all are taken. `exists`: bound already. `denied`: not to this domain. */
export type EventError = 'badPort' | 'noSpace' | 'exists' | 'denied' | 'noDomain' | 'badVcpu' | 'invalid'

export interface PortStatus {
  readonly state: 'closed' | 'unbound' | 'interdomain' | 'physical' | 'virtual' | 'ipi'
  readonly vcpu: number
  /** Remote domain, of unbound and interdomain ones. */
  readonly remote: number
  readonly remotePort: number
  readonly virtual: number
}

/** Where pending bits are. Host addresses; `undefined` until the guest's first instruction is near. */
export interface EventMemory {
  readonly view: DataView
  readonly sharedInfo: Hpa
  /** Of a vCPU: it may move its own elsewhere. */
  vcpuInfo(vcpu: number): Hpa
}

/** One domain's. Ports are numbers from 1; port 0 is none. A result below 0 does not exist: errors are words. */
export interface EventChannels {
  attach(memory: EventMemory): void
  allocateUnbound(remote: number): number | EventError
  bindInterdomain(remote: number, remotePort: number): number | EventError
  bindVirtual(vcpu: number, virtual: number): number | EventError
  bindIpi(vcpu: number): number | EventError
  bindVcpu(port: number, vcpu: number): EventError | undefined
  close(port: number): EventError | undefined
  send(port: number): EventError | undefined
  unmask(port: number): EventError | undefined
  status(port: number): PortStatus | EventError
  isPending(port: number): boolean
  /** Whether the guest ever had it: what poll asks. */
  isOpen(port: number): boolean
  /** A virtual interrupt. Lost where the guest has bound none. */
  raiseVirtual(vcpu: number, virtual: number): void
  /** The vCPU's vcpu_info is elsewhere: everything pending is checked again. */
  markAll(vcpu: number): void
  /** Something became deliverable to the vCPU, or it is to look: it wakes up. */
  wake(vcpu: number): void
  /** All ports closed. */
  reset(): void
}

/** A back end at the other side of a page-sized ring, in domain 0's place. */
export interface RingBackend {
  /** Port in the guest, waiting for domain 0. Valid until the domain's reset. */
  readonly port: number
  /** Of guests that do not choose the page themselves: its address. */
  readonly page?: Gpa | undefined
  /** The guest's page. */
  connect(page: Gpa): void
}

/** Pages that the guest grants, as back ends in domain 0 use them. */
export interface GrantAccess {
  /** Begins a use, which keeps the page in place. Its address in devices' memory (`DmaMemory`); undefined: it is not granted, or not for writing. */
  begin(reference: number, writable: boolean): Gpa | undefined
  /** Ends a use that has begun with the same arguments. */
  end(reference: number, writable: boolean): void
}

/** How a machine's platform device interrupts. */
export interface PlatformDevice extends Pick<PciFunction, 'requesterId' | 'interrupt'> {
  line(gsi: number): InterruptLine
}

/** What Xen's I/O model gives its guest ABI. */
export interface XenPlatform {
  /** A domain is about to be built: no port is open but those of the back ends. */
  begin(): void
  /** The domain has ended: back ends use no grant and no port of it any more. */
  end(): void
  /** Before the first domain: grants of each. */
  connectGrants(grants: GrantAccess): void
  readonly events: EventChannels
  readonly console: RingBackend
  readonly store: RingBackend
  /** Of guests with interrupts: the vector that tells a vCPU of events, 0 none. It comes through the vCPU's local APIC. */
  setUpcallVector?(vcpu: number, vector: number): void
  /** The vector for all vCPUs that chose none, 0 none. It does not come through local APICs. */
  setCallbackVector?(vector: number): void
  /** The platform device of such guests: its pin, or a line of the machine, may notify the first vCPU instead. */
  connectDevice?(device: PlatformDevice): void
  /** That pin (0 is INTA) is to. False: it is not the platform device's. */
  setCallbackPin?(requesterId: number, pin: number): boolean
  /** That line is to. False: there is no such ISA interrupt. */
  setCallbackLine?(gsi: number): boolean
  /** The hypervisor's own console (console_io). */
  write(bytes: Uint8Array): void
  read(into: Uint8Array): number
}
export const XenPlatform = token<XenPlatform>('XenPlatform')
