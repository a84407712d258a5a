/** A PS/2 keyboard: commands, and key presses that the program injects. Independent of controllers. (IBM PS/2 technical reference, "Keyboard") */

import type { Saveable, Snapshot } from '@nonroot/contracts'
import { assignState, restoreState, saveState } from './state.ts'

const Command = {
  setIndicators: 0xed,
  echo: 0xee,
  scanCodeSet: 0xf0,
  identify: 0xf2,
  setRate: 0xf3,
  enable: 0xf4,
  disable: 0xf5,
  defaults: 0xf6,
  resend: 0xfe,
  reset: 0xff,
} as const
const Reply = { acknowledge: 0xfa, selfTestPassed: 0xaa, resend: 0xfe, id: [0xab, 0x83] } as const
/** 0x83 as a controller that translates shows it. */
const TRANSLATED_ID = 0x41
const BUFFER = 64
const RELEASE = 0x80
const LEFT_SHIFT = 0x2a

/** Set 1 codes of a US keyboard: the character at index n has code n, plain and with shift. */
const PLAIN = "\0\x1b1234567890-=\b\tqwertyuiop[]\n\0asdfghjkl;'`\0\\zxcvbnm,./\0*\0 "
const SHIFTED = '\0\0!@#$%^&*()_+\0\0QWERTYUIOP{}\0\0ASDFGHJKL:"~\0|ZXCVBNM<>?\0\0\0\0'

const powerOn = () => ({
  buffer: new Uint8Array(BUFFER),
  head: 0,
  count: 0,
  last: 0,
  /** Command whose argument comes next, or 0. */
  expects: 0,
  enabled: true,
  scanCodeSet: 2,
})

const TYPE = 'keyboard'

export class Keyboard implements Saveable {
  readonly #state = powerOn()
  readonly #changed: () => void

  constructor(changed: () => void) {
    this.#changed = changed
  }

  /** Bytes that wait for the controller. */
  get waiting(): number {
    return this.#state.count
  }

  get last(): number {
    return this.#state.last
  }

  take(): number {
    const state = this.#state
    state.last = state.buffer[state.head]!
    state.head = (state.head + 1) % BUFFER
    state.count--
    return state.last
  }

  #put(...bytes: number[]): boolean {
    const state = this.#state
    if (state.count + bytes.length > BUFFER) return false
    for (const byte of bytes) state.buffer[(state.head + state.count++) % BUFFER] = byte
    return true
  }

  command(value: number, translated: boolean): void {
    const state = this.#state
    const { expects } = state
    state.expects = 0
    if (expects !== 0) {
      this.#put(Reply.acknowledge)
      if (expects === Command.scanCodeSet) {
        if (value === 0) this.#put(state.scanCodeSet)
        else state.scanCodeSet = value
      }
      return
    }
    switch (value) {
      case Command.setIndicators:
      case Command.scanCodeSet:
      case Command.setRate:
        state.expects = value
        this.#put(Reply.acknowledge)
        break
      case Command.echo:
        this.#put(Command.echo)
        break
      case Command.identify:
        this.#put(Reply.acknowledge, Reply.id[0], translated ? TRANSLATED_ID : Reply.id[1])
        break
      case Command.enable:
      case Command.disable:
      case Command.defaults:
        state.enabled = value !== Command.disable
        this.#put(Reply.acknowledge)
        break
      case Command.resend:
        this.#put(state.last)
        break
      case Command.reset:
        this.reset()
        this.#put(Reply.acknowledge, Reply.selfTestPassed)
        break
      default:
        this.#put(Reply.resend)
    }
  }

  /** Press and release a key by its set 1 code, as a controller that translates passes it on. False: the buffer is full. */
  press(code: number, shift = false): boolean {
    if (!this.#state.enabled) return false
    const key = [code, code | RELEASE]
    const pressed = shift ? this.#put(LEFT_SHIFT, ...key, LEFT_SHIFT | RELEASE) : this.#put(...key)
    this.#changed()
    return pressed
  }

  /** Type characters that a US keyboard has; how many found room. */
  type(text: string): number {
    let typed = 0
    for (const character of text) {
      const plain = PLAIN.indexOf(character)
      const code = plain >= 0 ? plain : SHIFTED.indexOf(character)
      if (code > 0 && !this.press(code, plain < 0)) break
      typed++
    }
    return typed
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
