/**
 * QEMU's `pc-testdev`: what kernels that test hypervisors (kvm-unit-tests) expect of their machine. Interrupt lines by port, a
 * doubleword that ports keep, memory-mapped bytes. (QEMU, "pc-testdev")
 */

import { NonrootError } from '@nonroot/contracts'
import type { Device, DeviceContext, InterruptLine, IoHandler, Snapshot } from '@nonroot/contracts'

const Port = {
  /** A byte each: not zero raises the interrupt line of that number. */
  lines: 0x2000,
  /** Four bytes that keep what is written. */
  kept: 0xe0,
  /** A doubleword, the address of a page: it is to be taken out of what is mapped and put back. */
  flushPage: 0xe4,
} as const
const LINES = 24
const MEMORY = { at: 0xff00_0000, length: 0x1_0000 } as const
const TYPE = 'pc-testdev'

export class PcTestdev implements Device {
  readonly #lines: readonly InterruptLine[]
  readonly #levels = new Uint8Array(LINES)
  readonly #kept = new Uint8Array(4)
  readonly #memory = new Uint8Array(MEMORY.length)

  constructor(context: DeviceContext) {
    this.#lines = Array.from({ length: LINES }, (_, number) => context.interrupt(number))
    context.portIo(Port.lines, LINES, {
      read: () => 0,
      write: (offset, _size, value) => this.#drive(offset, value),
    })
    context.portIo(Port.kept, this.#kept.length, keeper(this.#kept))
    // Translations are never stale here: there is nothing to flush.
    context.portIo(Port.flushPage, 4, { read: () => 0, write: () => {} })
    context.mmio(MEMORY, keeper(this.#memory))
  }

  #drive(number: number, value: number): void {
    this.#levels[number] = value === 0 ? 0 : 1
    if (value === 0) this.#lines[number]!.lower()
    else this.#lines[number]!.raise()
  }

  reset(): void {
    this.#kept.fill(0)
    this.#memory.fill(0)
    for (let number = 0; number < LINES; number++) this.#drive(number, 0)
  }

  save(): Snapshot {
    return {
      type: TYPE,
      version: 1,
      data: { levels: this.#levels.slice(), kept: this.#kept.slice(), memory: this.#memory.slice() },
    }
  }

  restore({ type, version, data }: Snapshot): void {
    if (type !== TYPE || version !== 1)
      throw new NonrootError({
        code: 'snapshot.mismatch',
        message: `a snapshot of ${type}, version ${version}, does not fit ${TYPE}, version 1`,
        thing: TYPE,
      })
    this.#kept.set(data['kept'] as Uint8Array)
    this.#memory.set(data['memory'] as Uint8Array)
    ;(data['levels'] as Uint8Array).forEach((level, number) => this.#drive(number, level))
  }
}

/** Bytes that keep what is written, in accesses of any size. */
function keeper(bytes: Uint8Array): IoHandler {
  return {
    read(offset, size) {
      let value = 0
      for (let at = size - 1; at >= 0; at--) value = value * 256 + (bytes[offset + at] ?? 0xff)
      return value
    },
    write(offset, size, value) {
      for (let at = 0; at < size && offset + at < bytes.length; at++) bytes[offset + at] = (value >>> (8 * at)) & 0xff
    },
  }
}
