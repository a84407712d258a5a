/** isa-debug-exit: a guest ends its VM with a status by one port write. Independent of the guest. */

import type { DeviceContext, IoHandler, IoSize, PowerControl } from '@nonroot/contracts'

/** A doubleword `0x4E520000 | status` ("NR") gives any status from 0 to 255, which the device's own rule cannot. */
const STATUS_SIGNATURE = 0x4e52_0000

export class DebugExit implements IoHandler {
  readonly #power: PowerControl

  constructor(context: DeviceContext, port: number) {
    this.#power = context.power
    context.portIo(port, 4, this)
  }

  read(): number {
    return 0
  }

  /** The usual rule, so that guests written for it work: status is `(value << 1) | 1`. */
  write(_offset: number, size: IoSize, value: number): void {
    if (size === 4 && (value & 0xffff_ff00) >>> 0 === STATUS_SIGNATURE) this.#power.exit(value & 0xff)
    else this.#power.exit(((value << 1) | 1) & 0xff)
  }
}
