/** Debug consoles of firmware: ports 0xE9 (Bochs) and 0x402 (SeaBIOS). Bytes written there go to the log or to the console. */

import type { DeviceContext, IoHandler, Log } from '@nonroot/contracts'

/** What a read gives where the port is there. */
const PRESENT = 0xe9
const LONGEST_LINE = 512

export type DebugOutput = 'log' | 'console'

export class DebugConsole implements IoHandler {
  readonly #log: Log
  readonly #write: ((byte: number) => void) | undefined
  readonly #port: number
  #line = ''

  /** With `write`, bytes go there; without, whole lines go to the log. */
  constructor(context: Pick<DeviceContext, 'portIo' | 'log'>, port: number, write?: (byte: number) => void) {
    this.#log = context.log
    this.#write = write
    this.#port = port
    context.portIo(port, 1, this)
  }

  read(): number {
    return PRESENT
  }

  write(_offset: number, _size: number, value: number): void {
    const byte = value & 0xff
    if (this.#write) return this.#write(byte)
    if (byte !== 0x0a && this.#line.length < LONGEST_LINE) {
      if (byte >= 0x20) this.#line += String.fromCharCode(byte)
      return
    }
    const line = this.#line
    this.#line = byte >= 0x20 ? String.fromCharCode(byte) : ''
    this.#log.debug(() => `port 0x${this.#port.toString(16)}: ${line}`)
  }
}
