/** Registers of the 8237 pair, the page registers and the POST port. No ISA device uses DMA. (8237A data sheet) */

import type { Device, DeviceContext, Snapshot } from '@nonroot/contracts'
import { BytePorts } from './byte-ports.ts'
import { assignState, restoreState, saveState } from './state.ts'

const Command = {
  status: 0,
  request: 1,
  mask: 2,
  mode: 3,
  clearFlipFlop: 4,
  masterClear: 5,
  clearMask: 6,
  writeMask: 7,
} as const
/** Every channel masked: as after a master clear. */
const ALL_MASKED = 0x0f

const powerOn = () => ({
  /** Address and count of each channel, low and high byte. */
  channels: new Uint8Array(32),
  masks: Uint8Array.of(ALL_MASKED, ALL_MASKED),
  highByte: new Uint8Array(2),
  pages: new Uint8Array(16),
})

const TYPE = 'dma8237'

export class Dma8237 implements Device {
  readonly #state = powerOn()

  constructor(context: Pick<DeviceContext, 'portIo'>) {
    this.#claim(context, 0, 0x00, 0)
    this.#claim(context, 1, 0xc0, 1)
    const { pages } = this.#state
    const page = {
      readByte: (offset: number) => pages[offset]!,
      writeByte: (offset: number, value: number) => void (pages[offset] = value),
    }
    context.portIo(0x80, 16, new BytePorts(page, 16))
  }

  /** The second controller's registers are two ports apart. */
  #claim(context: Pick<DeviceContext, 'portIo'>, chip: 0 | 1, base: number, shift: number): void {
    const length = 16 << shift
    const registers = {
      readByte: (offset: number) => this.#read(chip, offset >> shift),
      writeByte: (offset: number, value: number) => this.#write(chip, offset >> shift, value),
    }
    context.portIo(base, length, new BytePorts(registers, length))
  }

  #half(chip: 0 | 1, register: number): number {
    const half = this.#state.highByte[chip]!
    this.#state.highByte[chip] = half ^ 1
    return chip * 16 + register * 2 + half
  }

  #read(chip: 0 | 1, register: number): number {
    if (register < 8) return this.#state.channels[this.#half(chip, register)]!
    return register - 8 === Command.writeMask ? this.#state.masks[chip]! : 0
  }

  #write(chip: 0 | 1, register: number, value: number): void {
    const { channels, masks, highByte } = this.#state
    if (register < 8) {
      channels[this.#half(chip, register)] = value
      return
    }
    switch (register - 8) {
      case Command.mask:
        if (value & 4) masks[chip]! |= 1 << (value & 3)
        else masks[chip]! &= ~(1 << (value & 3))
        break
      case Command.clearFlipFlop:
        highByte[chip] = 0
        break
      case Command.masterClear:
        highByte[chip] = 0
        masks[chip] = ALL_MASKED
        break
      case Command.clearMask:
        masks[chip] = 0
        break
      case Command.writeMask:
        masks[chip] = value & ALL_MASKED
        break
    }
  }

  reset(): void {
    assignState(this.#state, powerOn())
  }

  save(): Snapshot {
    return saveState(TYPE, 1, this.#state)
  }

  restore(snapshot: Snapshot): void {
    restoreState(snapshot, TYPE, 1, this.#state)
  }
}
