/**
 * Routes PCI pins: each to its pin of the I/O APIC, and to an ISA IRQ as the LPC bridge routes it: to the 8259 pair (ICH9 datasheet,
 * "PIRQ[n]_ROUT"), and to that IRQ's pin of the I/O APIC, which is the one that SeaBIOS's MP table names.
 */

import type { InterruptLine } from '@nonroot/contracts'
import type { PcInterruptController } from '../apic/interrupt-controller.ts'
import { PCI_INTX } from '../pc-addresses.ts'

/** In a routing register: not to the 8259 pair. */
export const PIRQ_OFF = 0x80
const NOWHERE = -1
/** IRQs that are not PCI's to use: timer, keyboard, cascade, RTC, FPU. */
const RESERVED = 0b0010_0001_0000_0111

export class PirqRouter {
  readonly #interrupts: PcInterruptController
  /** ISA IRQs that a PIRQ was ever routed to. */
  readonly #lines = new Map<number, InterruptLine>()
  /** How many pins assert each PIRQ, and the IRQ that it goes to. */
  readonly #asserted = new Uint16Array(PCI_INTX.length)
  readonly #routes = new Int8Array(PCI_INTX.length).fill(NOWHERE)

  constructor(interrupts: PcInterruptController) {
    this.#interrupts = interrupts
  }

  /** A routing register was written. */
  route(pirq: number, register: number): void {
    const before = this.#routes[pirq]!
    const irq = register & PIRQ_OFF ? NOWHERE : register & 0xf
    if (irq === before) return
    this.#routes[pirq] = irq
    this.#drive(before)
    this.#drive(irq)
  }

  /** An IRQ is asserted while any PIRQ routed to it is. */
  #drive(irq: number): void {
    if (irq === NOWHERE || RESERVED & (1 << irq)) return
    let asserted = false
    for (let pirq = 0; pirq < PCI_INTX.length; pirq++) {
      if (this.#routes[pirq] === irq && this.#asserted[pirq]! > 0) asserted = true
    }
    let line = this.#lines.get(irq)
    if (!line) this.#lines.set(irq, (line = this.#interrupts.line(irq)!))
    if (asserted) line.raise()
    else line.lower()
  }

  /** One function's pin. */
  pin(pirq: number): InterruptLine {
    const line = this.#interrupts.line(PCI_INTX[pirq as 0])!
    let raised = false
    const set = (to: boolean): void => {
      if (to === raised) return
      raised = to
      this.#asserted[pirq]! += to ? 1 : -1
      if (to) line.raise()
      else line.lower()
      this.#drive(this.#routes[pirq]!)
    }
    return {
      raise: () => set(true),
      lower: () => set(false),
      pulse: () => {
        set(true)
        set(false)
      },
      // Of the I/O APIC. The 8259 pair does not say.
      onEnd: (listener) => line.onEnd?.(listener),
    }
  }
}
