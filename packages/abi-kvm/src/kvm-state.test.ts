/** KVM's interface over reset, save and restore, judged by what its MSRs, its structures in memory and its hypercalls then tell a guest. */

import type { EoiAssist, GuestAbiVcpu, Snapshot, X86InterruptController } from '@nonroot/contracts'
import { createTestClock, createTestGuestMemory, createTestHostMemory, testState } from '@nonroot/testkit'
import type { StateSubject } from '@nonroot/testkit'
import { it } from 'vitest'
import { KvmAbi } from './kvm.ts'
import { kvmOptions } from './options.ts'

const VCPUS = 2
const MSRS = [0x11, 0x12, 0x4b564d00, 0x4b564d01, 0x4b564d03, 0x4b564d04, 0x4b564d05]
/** Where the guest puts its structures. */
const AREA = 0x1000
const PLACES = 6
const PLACE_BYTES = 64

class KvmSubject implements StateSubject {
  readonly #memory = createTestGuestMemory({ hostMemory: createTestHostMemory(64), ram: 1 << 16 })
  readonly #clock = createTestClock()
  readonly #sent: [number, number][] = []
  readonly #abi = new KvmAbi(kvmOptions.parse({}))
  #assist!: EoiAssist

  constructor() {
    const interrupts = {
      setEoiAssist: (assist: EoiAssist) => void (this.#assist = assist),
      messages: { send: (address: number, data: number) => void this.#sent.push([address, data]) },
    } as unknown as X86InterruptController
    const ports = { guestMemory: this.#memory, clock: this.#clock, interrupts, vcpuCount: VCPUS }
    this.#abi.attach({ ...ports, power: {} as never, paging: {} as never, capability: () => ({}) as never })
  }

  step(random: (below: number) => number): unknown {
    const vcpu = random(VCPUS)
    const msr = MSRS[random(MSRS.length)]!
    const seen: unknown[] = []
    switch (random(8)) {
      case 0:
      case 1:
        seen.push(msr, this.#abi.writeMsr(vcpu, msr, BigInt(AREA + random(PLACES) * PLACE_BYTES + random(4))))
        break
      case 2:
        this.#abi.accountSteal(vcpu, 1 + random(1e6))
        break
      case 3:
        this.#abi.onEntry(vcpu)
        break
      case 4:
        seen.push('offer', this.#assist.offer(vcpu))
        break
      case 5:
        // The guest ends the interrupt.
        if (random(2)) this.#memory.writeU8(AREA + random(PLACES) * PLACE_BYTES, 0)
        seen.push('taken', this.#assist.taken(vcpu))
        break
      case 6: {
        const registers = {
          rax: 10n,
          rbx: BigInt(random(4)),
          rcx: 0n,
          rdx: 0n,
          rsi: 0x40n,
          rdi: 0n,
          r8: 0n,
          r9: 0n,
          r10: 0n,
        }
        const caller: GuestAbiVcpu = { index: vcpu, registers, cpl: 0, longMode: true, translate: () => undefined }
        seen.push(this.#abi.hypercall(caller), registers.rax)
        break
      }
      default:
        this.#clock.advanceNs(random(1e6))
    }
    const bytes = new Uint8Array(PLACES * PLACE_BYTES)
    this.#memory.readBytes(AREA, bytes)
    const msrs = MSRS.flatMap((index) => [0, 1].map((of) => this.#abi.readMsr(of, index)))
    return { seen, msrs, bytes: Buffer.from(bytes).toString('hex'), sent: this.#sent.splice(0) }
  }
  /** As the local APICs do. */
  #withdraw(): void {
    for (let vcpu = 0; vcpu < VCPUS; vcpu++) this.#assist.withdraw(vcpu)
  }
  reset(): void {
    this.#withdraw()
    this.#abi.reset()
  }
  save(): Snapshot {
    return this.#abi.save()
  }
  restore(saved: Snapshot): void {
    this.#abi.restore(saved)
  }
  surround(other: this): void {
    other.#withdraw()
    this.#clock.restore(other.#clock.save())
    const bytes = new Uint8Array(1 << 16)
    other.#memory.readBytes(0, bytes)
    this.#memory.writeBytes(0, bytes)
  }
}

testState("KVM's interface", () => new KvmSubject(), it, { rounds: 20 })
