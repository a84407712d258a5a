/** Pair of 8259A interrupt controllers with ELCR. Independent of the processor: it has an output line and a function that acknowledges an interrupt. (8259A data sheet) @hot */

import type { DeviceContext, Saveable, Snapshot } from '@nonroot/contracts'
import { BytePorts } from './byte-ports.ts'
import type { ByteRegisters } from './byte-ports.ts'
import { assignState, restoreState, saveState } from './state.ts'

const Icw1 = { icw4: 0x01, single: 0x02, initialise: 0x10 } as const
const Icw4 = { autoEoi: 0x02, specialFullyNested: 0x10 } as const
const Ocw3 = {
  select: 0x08,
  readRegister: 0x02,
  readIsr: 0x01,
  poll: 0x04,
  setSpecialMask: 0x40,
  specialMask: 0x20,
} as const
/** OCW2, bits 7:5. */
const Ocw2 = {
  clearRotateOnAutoEoi: 0,
  eoi: 1,
  specificEoi: 3,
  rotateOnAutoEoi: 4,
  rotateOnEoi: 5,
  setPriority: 6,
  rotateOnSpecificEoi: 7,
} as const

const CASCADE = 2
const SPURIOUS = 7
const NONE = 8

const chipPowerOn = () => ({
  irr: 0,
  isr: 0,
  imr: 0,
  /** Bit set: level-triggered. Lives in the south bridge, so ICW1 leaves it alone. */
  elcr: 0,
  lines: 0,
  vectorBase: 0,
  /** Which ICW comes next at the odd port: 2, 3, 4, or 0 when initialised. */
  nextIcw: 0,
  expectIcw4: false,
  single: false,
  autoEoi: false,
  rotateOnAutoEoi: false,
  specialMask: false,
  specialFullyNested: false,
  readIsr: false,
  poll: false,
  /** The input that has highest priority. */
  highest: 0,
})

/** One 8259A. */
class Pic8259 implements ByteRegisters {
  readonly state = chipPowerOn()
  readonly #cascade: number
  readonly #changed: () => void

  /** `cascade`: input bits that another chip drives. */
  constructor(cascade: number, changed: () => void) {
    this.#cascade = cascade
    this.#changed = changed
  }

  /** The input to serve now, or -1: unmasked, requested, and above what is in service. */
  pending(): number {
    const state = this.state
    const priority = this.#priority(state.irr & ~state.imr)
    if (priority === NONE) return -1
    let inService = state.isr
    if (state.specialMask) inService &= ~state.imr
    // Special fully nested mode: a slave in service may interrupt again with a higher request of its own.
    if (state.specialFullyNested) inService &= ~this.#cascade
    return priority < this.#priority(inService) ? (priority + state.highest) & 7 : -1
  }

  #priority(mask: number): number {
    if (mask === 0) return NONE
    let priority = 0
    while (!(mask & (1 << ((priority + this.state.highest) & 7)))) priority++
    return priority
  }

  /** Inputs whose request is their level: also another chip's, which takes back what was masked or acknowledged meanwhile. */
  #levels(): number {
    return this.state.elcr | this.#cascade
  }

  setLine(input: number, asserted: boolean): void {
    const state = this.state
    const bit = 1 << input
    if (asserted) {
      if (this.#levels() & bit || !(state.lines & bit)) state.irr |= bit
      state.lines |= bit
    } else {
      // An edge that was latched stays latched, or a pulse would be lost.
      if (this.#levels() & bit) state.irr &= ~bit
      state.lines &= ~bit
    }
  }

  acknowledge(input: number): void {
    const state = this.state
    if (state.autoEoi) {
      if (state.rotateOnAutoEoi) state.highest = (input + 1) & 7
    } else state.isr |= 1 << input
    if (!(this.#levels() & (1 << input))) state.irr &= ~(1 << input)
  }

  readByte(offset: number): number {
    const state = this.state
    if (state.poll) {
      state.poll = false
      const input = this.pending()
      if (input < 0) return 0
      this.acknowledge(input)
      this.#changed()
      return 0x80 | input
    }
    if (offset === 1) return state.imr
    return state.readIsr ? state.isr : state.irr
  }

  writeByte(offset: number, value: number): void {
    const state = this.state
    if (offset === 1) this.#writeOdd(value)
    else if (value & Icw1.initialise) this.#initialise(value)
    else if (value & Ocw3.select) {
      if (value & Ocw3.poll) state.poll = true
      if (value & Ocw3.readRegister) state.readIsr = (value & Ocw3.readIsr) !== 0
      if (value & Ocw3.setSpecialMask) state.specialMask = (value & Ocw3.specialMask) !== 0
    } else this.#command(value >> 5, value & 7)
    this.#changed()
  }

  #initialise(icw1: number): void {
    const { elcr, lines, irr, vectorBase } = this.state
    assignState(this.state, { ...chipPowerOn(), elcr, lines, vectorBase, irr: irr & elcr & lines })
    this.state.nextIcw = 2
    this.state.expectIcw4 = (icw1 & Icw1.icw4) !== 0
    this.state.single = (icw1 & Icw1.single) !== 0
  }

  #writeOdd(value: number): void {
    const state = this.state
    switch (state.nextIcw) {
      case 2:
        state.vectorBase = value & 0xf8
        state.nextIcw = state.single ? (state.expectIcw4 ? 4 : 0) : 3
        break
      case 3: // who is cascaded is wired in a PC
        state.nextIcw = state.expectIcw4 ? 4 : 0
        break
      case 4:
        state.autoEoi = (value & Icw4.autoEoi) !== 0
        state.specialFullyNested = (value & Icw4.specialFullyNested) !== 0
        state.nextIcw = 0
        break
      default:
        state.imr = value
    }
  }

  #command(command: number, level: number): void {
    const state = this.state
    switch (command) {
      case Ocw2.clearRotateOnAutoEoi:
      case Ocw2.rotateOnAutoEoi:
        state.rotateOnAutoEoi = command === Ocw2.rotateOnAutoEoi
        break
      case Ocw2.eoi:
      case Ocw2.rotateOnEoi: {
        const priority = this.#priority(state.isr)
        if (priority === NONE) break
        const input = (priority + state.highest) & 7
        state.isr &= ~(1 << input)
        if (command === Ocw2.rotateOnEoi) state.highest = (input + 1) & 7
        break
      }
      case Ocw2.specificEoi:
      case Ocw2.rotateOnSpecificEoi:
        state.isr &= ~(1 << level)
        if (command === Ocw2.rotateOnSpecificEoi) state.highest = (level + 1) & 7
        break
      case Ocw2.setPriority:
        state.highest = (level + 1) & 7
        break
    }
  }
}

/** ELCR bits that can be set: system timer, keyboard, cascade, RTC and FPU are edges. (ICH9 datasheet, "ELCR1", "ELCR2") */
const ELCR_WRITABLE = [0xf8, 0xde] as const

const TYPE = 'pic8259'

export class PicPair implements Saveable {
  /** INTR: an unmasked request waits. */
  output = false
  /** Called when `output` rises. */
  onOutput: () => void = () => {}
  readonly #master: Pic8259
  readonly #slave: Pic8259

  constructor(context: Pick<DeviceContext, 'portIo'>) {
    const changed = (): void => this.#update()
    this.#master = new Pic8259(1 << CASCADE, changed)
    this.#slave = new Pic8259(0, changed)
    context.portIo(0x20, 2, new BytePorts(this.#master, 2))
    context.portIo(0xa0, 2, new BytePorts(this.#slave, 2))
    context.portIo(
      0x4d0,
      2,
      new BytePorts(
        { readByte: (chip) => this.#readElcr(chip), writeByte: (chip, value) => this.#writeElcr(chip, value) },
        2,
      ),
    )
  }

  /** Input 0 to 15, the cascade excepted. */
  setLine(irq: number, asserted: boolean): void {
    if (irq < 8) this.#master.setLine(irq, asserted)
    else this.#slave.setLine(irq - 8, asserted)
    this.#update()
  }

  /** The vector of an interrupt-acknowledge cycle. With nothing pending, the spurious one: input 7 without in-service bit. */
  acknowledge(): number {
    const master = this.#master
    const slave = this.#slave
    const input = master.pending()
    if (input < 0) return master.state.vectorBase + SPURIOUS
    master.acknowledge(input)
    let vector = master.state.vectorBase + input
    if (input === CASCADE) {
      const slaveInput = slave.pending()
      if (slaveInput >= 0) slave.acknowledge(slaveInput)
      vector = slave.state.vectorBase + (slaveInput < 0 ? SPURIOUS : slaveInput)
    }
    this.#update()
    return vector
  }

  #update(): void {
    this.#master.setLine(CASCADE, this.#slave.pending() >= 0)
    const before = this.output
    this.output = this.#master.pending() >= 0
    if (this.output && !before) this.onOutput()
  }

  #readElcr(chip: number): number {
    return (chip === 0 ? this.#master : this.#slave).state.elcr
  }

  #writeElcr(chip: number, value: number): void {
    const { state } = chip === 0 ? this.#master : this.#slave
    state.elcr = value & ELCR_WRITABLE[chip as 0 | 1]
    // An input that is level-triggered now requests what its line says.
    state.irr = (state.irr & ~state.elcr) | (state.lines & state.elcr)
    this.#update()
  }

  reset(): void {
    for (const { state } of [this.#master, this.#slave]) assignState(state, { ...chipPowerOn(), lines: state.lines })
    this.#master.state.lines &= ~(1 << CASCADE)
    this.output = false
  }

  save(): Snapshot {
    const chips = [this.#master, this.#slave].map(({ state }) => saveState(TYPE, 1, state).data)
    return { type: TYPE, version: 1, data: { master: chips[0]!, slave: chips[1]! } }
  }

  restore(snapshot: Snapshot): void {
    for (const [name, chip] of [
      ['master', this.#master],
      ['slave', this.#slave],
    ] as const) {
      const data = snapshot.data[name] as Snapshot['data']
      restoreState({ ...snapshot, data }, TYPE, 1, chip.state)
    }
    this.#update()
  }
}
