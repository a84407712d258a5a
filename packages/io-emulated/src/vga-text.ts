/** VGA in text mode: memory at 0xB8000, the registers that text mode needs, the screen as lines of text. Draws nothing. (IBM VGA technical reference) */

import type { Clock, Device, DeviceContext, IoHandler, IoSize, Snapshot } from '@nonroot/contracts'
import { BytePorts } from './byte-ports.ts'
import type { ByteRegisters } from './byte-ports.ts'
import { assignState, restoreState, saveState } from './state.ts'

const MEMORY_BASE = 0xb_8000
const MEMORY_SIZE = 0x8000
const PORTS = 0x3c0

/** Offsets from 0x3C0. */
const Port = {
  attribute: 0x00,
  attributeRead: 0x01,
  miscellaneous: 0x02,
  sequencerIndex: 0x04,
  sequencer: 0x05,
  pelMask: 0x06,
  pelReadIndex: 0x07,
  pelWriteIndex: 0x08,
  pelData: 0x09,
  miscellaneousRead: 0x0c,
  graphicsIndex: 0x0e,
  graphics: 0x0f,
  crtcIndex: 0x14,
  crtc: 0x15,
  status1: 0x1a,
} as const
const Crtc = {
  horizontalDisplayEnd: 0x01,
  maximumScanLine: 0x09,
  startHigh: 0x0c,
  startLow: 0x0d,
  verticalDisplayEnd: 0x12,
} as const
const Status1 = { blanking: 0x01, verticalRetrace: 0x08 } as const

/** Mode 3: 80 columns, 25 rows of 16 lines. */
const COLUMNS = 80
const ROWS = 25
const MODE_3_CRTC = [
  0x5f, 0x4f, 0x50, 0x82, 0x55, 0x81, 0xbf, 0x1f, 0, 0x4f, 0x0d, 0x0e, 0, 0, 0, 0, 0x9c, 0x8e, 0x8f, 0x28, 0x1f, 0x96,
  0xb9, 0xa3, 0xff,
]
const FRAME_NS = 1e9 / 70
const RETRACE_NS = 1e6
const LINE_NS = 31_778
const BLANKING_NS = 6_000

const powerOn = () => {
  const crtc = new Uint8Array(32)
  crtc.set(MODE_3_CRTC)
  return {
    memory: new Uint8Array(MEMORY_SIZE),
    crtc,
    crtcIndex: 0,
    attribute: new Uint8Array(32),
    attributeIndex: 0,
    attributeData: false,
    sequencer: Uint8Array.of(3, 0, 3, 0, 2, 0, 0, 0),
    sequencerIndex: 0,
    graphics: Uint8Array.of(0, 0, 0, 0, 0, 0x10, 0x0e, 0, 0xff, 0, 0, 0, 0, 0, 0, 0),
    graphicsIndex: 0,
    palette: new Uint8Array(768),
    paletteRead: 0,
    paletteWrite: 0,
    pelMask: 0xff,
    miscellaneous: 0x67,
  }
}

const TYPE = 'vga-text'

export class VgaText implements Device, ByteRegisters {
  readonly #state = powerOn()
  readonly #clock: Clock

  constructor(context: Pick<DeviceContext, 'portIo' | 'mmio' | 'clock'>) {
    this.#clock = context.clock
    context.portIo(PORTS, 0x20, new BytePorts(this, 0x20))
    const { memory } = this.#state
    const handler: IoHandler = {
      read: (offset, size) => readMemory(memory, offset, size),
      write(offset, size, value) {
        for (let byte = 0; byte < size && offset + byte < MEMORY_SIZE; byte++)
          memory[offset + byte] = value >>> (8 * byte)
      },
    }
    context.mmio({ at: MEMORY_BASE, length: MEMORY_SIZE }, handler)
  }

  /** What the screen shows, a line a row, without trailing spaces. */
  screen(): string[] {
    const { crtc, memory } = this.#state
    const columns = crtc[Crtc.horizontalDisplayEnd]! + 1 === 40 ? 40 : COLUMNS
    const start = ((crtc[Crtc.startHigh]! << 8) | crtc[Crtc.startLow]!) * 2
    return Array.from({ length: ROWS }, (_, row) => {
      let line = ''
      for (let column = 0; column < columns; column++) {
        line += CODE_PAGE_437[memory[(start + (row * columns + column) * 2) % MEMORY_SIZE]!]!
      }
      return line.trimEnd()
    })
  }

  readByte(offset: number): number {
    const state = this.#state
    switch (offset) {
      case Port.attribute:
        return state.attributeIndex
      case Port.attributeRead:
        return state.attribute[state.attributeIndex & 31]!
      case Port.miscellaneous:
        return 0x10 // a display is there
      case Port.sequencerIndex:
        return state.sequencerIndex
      case Port.sequencer:
        return state.sequencer[state.sequencerIndex & 7]!
      case Port.pelMask:
        return state.pelMask
      case Port.pelWriteIndex:
        return Math.floor(state.paletteWrite / 3)
      case Port.pelData: {
        const value = state.palette[state.paletteRead]!
        state.paletteRead = (state.paletteRead + 1) % 768
        return value
      }
      case Port.miscellaneousRead:
        return state.miscellaneous
      case Port.graphicsIndex:
        return state.graphicsIndex
      case Port.graphics:
        return state.graphics[state.graphicsIndex & 15]!
      case Port.crtcIndex:
        return state.crtcIndex
      case Port.crtc:
        return state.crtc[state.crtcIndex & 31]!
      case Port.status1: {
        state.attributeData = false
        const now = this.#clock.nowNs()
        const retrace = now % FRAME_NS < RETRACE_NS
        return retrace ? Status1.verticalRetrace | Status1.blanking : now % LINE_NS < BLANKING_NS ? Status1.blanking : 0
      }
    }
    return offset === Port.pelReadIndex ? 0 : 0xff
  }

  writeByte(offset: number, value: number): void {
    const state = this.#state
    switch (offset) {
      case Port.attribute:
        if (state.attributeData) state.attribute[state.attributeIndex & 31] = value
        else state.attributeIndex = value & 0x3f
        state.attributeData = !state.attributeData
        break
      case Port.miscellaneous:
        state.miscellaneous = value
        break
      case Port.sequencerIndex:
        state.sequencerIndex = value
        break
      case Port.sequencer:
        state.sequencer[state.sequencerIndex & 7] = value
        break
      case Port.pelMask:
        state.pelMask = value
        break
      case Port.pelReadIndex:
        state.paletteRead = value * 3
        break
      case Port.pelWriteIndex:
        state.paletteWrite = value * 3
        break
      case Port.pelData:
        state.palette[state.paletteWrite] = value & 0x3f
        state.paletteWrite = (state.paletteWrite + 1) % 768
        break
      case Port.graphicsIndex:
        state.graphicsIndex = value
        break
      case Port.graphics:
        state.graphics[state.graphicsIndex & 15] = value
        break
      case Port.crtcIndex:
        state.crtcIndex = value
        break
      case Port.crtc:
        state.crtc[state.crtcIndex & 31] = value
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

function readMemory(memory: Uint8Array, offset: number, size: IoSize): number {
  let value = 0
  for (let byte = 0; byte < size; byte++) value |= (memory[offset + byte] ?? 0xff) << (8 * byte)
  return value >>> 0
}

/** Code page 437, the character generator's set. */
const CODE_PAGE_437 = [
  ...' ☺☻♥♦♣♠•◘○◙♂♀♪♫☼►◄↕‼¶§▬↨↑↓→←∟↔▲▼',
  ...Array.from({ length: 95 }, (_, index) => String.fromCharCode(32 + index)),
  ...'⌂ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐└┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■ ',
]
