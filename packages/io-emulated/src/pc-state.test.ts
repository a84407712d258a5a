/** The whole PC: reset, save and restore of all its parts at once, judged at its registers, its vCPUs' interrupts and its console. */

import { gpa } from '@nonroot/contracts'
import type { Snapshot } from '@nonroot/contracts'
import { testState } from '@nonroot/testkit'
import type { StateSubject } from '@nonroot/testkit'
import { it } from 'vitest'
import { startPc } from './pc-bench.test.ts'

const VCPUS = 2
/** Ports by device; each device has the same chance. */
const PORTS = [
  [0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1],
  [0x40, 0x41, 0x42, 0x43, 0x61],
  [0x60, 0x64],
  [0x70, 0x71],
  [0x00, 0x08, 0x0a, 0x0b, 0x0c, 0x81, 0xd6],
  [0x3c0, 0x3c1, 0x3c4, 0x3c5, 0x3d4, 0x3d5, 0x3da],
  [0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff],
  [0x510, 0x511, 0x514, 0x518],
  [0x600, 0x602, 0x603, 0x604, 0x608, 0x628, 0x630],
  [0xcf8, 0xcfc, 0xcf9],
  [0xf0, 0xf1, 0x92],
] as const
const MEMORY = [0xb8000, 0xe0000000, 0xe0008000, 0xe00f8000, 0xfec00000, 0xfec00010, 0xfee00000, 0xfee00080, 0xfee00300, 0xfee00320, 0xfee00380, 0xfed00000, 0xfed00100, 0xc0000000] as const
const MSRS = [0x1b, 0x6e0, 0x808, 0x80b, 0x80f, 0x830, 0x832, 0x838, 0x83e, 0x83f] as const
const SIZES = [1, 2, 4] as const

class PcSubject implements StateSubject {
  readonly #machine = startPc({ vcpuCount: VCPUS, options: { hpet: true } })
  readonly #bar: number[] = []
  readonly #function = this.#machine.pc.pciBus.add('device', {
    vendorId: 1,
    deviceId: 2,
    classCode: 0xff0000,
    bars: { 0: { kind: 'mmio32', size: 4096, handler: { read: (offset) => offset & 0xff, write: (offset) => void this.#bar.push(offset) } } },
    msixVectors: 4,
    msiVectors: 8,
    interruptPin: 'B',
  })
  #seen = 0

  step(random: (below: number) => number, peers: boolean): unknown {
    const { pc, clock, power, woken, console, readPort, writePort, readMmio, writeMmio } = this.#machine
    const { interruptController } = pc
    const size = SIZES[random(3)]!
    const written = random(3) === 0 ? random(256) : random(2) === 0 ? 2 ** random(32) : random(2 ** 32)
    const group = PORTS[random(PORTS.length)]!
    const port = group[random(group.length)]!
    const address = MEMORY[random(MEMORY.length)]! + random(8) * 16 * (random(4) === 0 ? random(16) : 1)
    const vcpu = random(VCPUS)
    woken.length = power.length = 0
    const seen: unknown[] = []
    switch (random(9)) {
      case 0:
      case 1:
        seen.push(`port ${port.toString(16)}/${size}`, readPort(port, size))
        break
      case 2:
        writePort(port, written % 2 ** (8 * size), size)
        break
      case 3:
        writePort(port, written & 0xff, 1)
        break
      case 4:
        seen.push(address.toString(16), readMmio(address, 4))
        break
      case 5:
        writeMmio(address, written, 4)
        break
      case 6: {
        const msr = MSRS[random(MSRS.length)]!
        if (random(2) === 0) seen.push(interruptController.writeMsr(vcpu, msr, (BigInt(random(4)) << 32n) | BigInt(written)))
        seen.push(interruptController.readMsr(vcpu, msr))
        break
      }
      case 7:
        // What happens at the function's side.
        if (random(3) === 0) this.#function.interrupt!.raise()
        else if (random(2) === 0) this.#function.interrupt!.lower()
        else if (this.#function.msixEnabled) this.#function.signal(random(4))
        break
      default:
        clock.advanceNs(random(4) === 0 ? random(3_000_000) : random(1000))
        if (peers && random(4) === 0) console.type('k')
    }
    if (peers && random(16) === 0) this.#machine.pressPowerButton()
    const output = console.bytes.slice(this.#seen)
    this.#seen += output.length
    const pending = Array.from({ length: VCPUS }, (_, index) => interruptController.hasPending(index))
    if (random(4) === 0 && pending[vcpu]) seen.push(interruptController.acknowledge(vcpu))
    for (const signal of [1, 2, 4, 8]) if (random(3) === 0 && interruptController.signals(vcpu) & signal) seen.push(interruptController.takeSignal(vcpu, signal))
    return {
      seen,
      pending,
      signals: Array.from({ length: VCPUS }, (_, index) => interruptController.signals(index)),
      woken: [...new Set(woken)].toSorted((a, b) => a - b),
      power: [...power],
      output,
      bar: this.#bar.splice(0),
    }
  }
  get #parts() {
    const { devices, interruptController } = this.#machine.pc
    return new Map([['interruptController', interruptController], ...devices])
  }
  reset(): void {
    // Lines are their devices'; this one is nobody's.
    this.#function.interrupt!.lower()
    for (const part of this.#parts.values()) part.reset!()
  }
  save(): Record<string, Snapshot> {
    return Object.fromEntries([...this.#parts].map(([name, part]) => [name, part.save!()]))
  }
  restore(saved: Record<string, Snapshot>): void {
    this.#function.interrupt!.lower()
    for (const [name, part] of this.#parts) part.restore!(saved[name]!)
  }
  surround(other: this): void {
    const [mine, theirs] = [this.#machine, other.#machine]
    mine.clock.restore(theirs.clock.save())
    const bytes = new Uint8Array(theirs.guestMemory.size)
    theirs.guestMemory.readBytes(gpa(0), bytes)
    mine.guestMemory.writeBytes(gpa(0), bytes)
    // The battery is no part of a reset.
    mine.pc.devices.get('rtc')!.restore!(theirs.pc.devices.get('rtc')!.save!())
  }
}

testState('the PC', () => new PcSubject(), it, { rounds: 12, steps: 1500 })
