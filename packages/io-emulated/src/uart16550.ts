/** 16550A UART: registers, FIFOs and interrupts, on a console. Independent of the terminal. (PC16550D data sheet) @hot */

import { snapshotData } from '@nonroot/contracts'
import type { ConsoleBackend, Counter, Device, DeviceContext, InterruptLine, Snapshot } from '@nonroot/contracts'
import { BytePorts } from './byte-ports.ts'
import type { ByteRegisters } from './byte-ports.ts'
import { InputQueue } from './input-queue.ts'
import { assignState, restoreState, saveState } from './state.ts'

const Register = { data: 0, ier: 1, iirFcr: 2, lcr: 3, mcr: 4, lsr: 5, msr: 6, scratch: 7 } as const
const Ier = { received: 1, transmitEmpty: 2, lineStatus: 4, modemStatus: 8, all: 0x0f } as const
/** Interrupt identification, highest priority first. Bit 0 set: none. */
const Iir = {
  lineStatus: 0x06,
  received: 0x04,
  timeout: 0x0c,
  transmitEmpty: 0x02,
  modemStatus: 0x00,
  none: 0x01,
  fifos: 0xc0,
} as const
const Fcr = { enable: 1, clearReceive: 2, clearTransmit: 4, dmaMode: 8 } as const
const Lcr = { break: 0x40, divisorLatch: 0x80 } as const
const Mcr = { dtr: 1, rts: 2, out1: 4, out2: 8, loop: 0x10, all: 0x1f } as const
const Lsr = { dataReady: 1, overrun: 2, errors: 0x1e, holdingEmpty: 0x20, transmitterEmpty: 0x40 } as const
const Msr = {
  deltaCts: 1,
  deltaDsr: 2,
  trailingRing: 4,
  deltaDcd: 8,
  cts: 0x10,
  dsr: 0x20,
  ring: 0x40,
  dcd: 0x80,
} as const

const FIFO_SIZE = 16
const TRIGGER_LEVELS = [1, 4, 8, 14] as const

const powerOn = () => ({
  ier: 0,
  fcr: 0,
  lcr: 0,
  mcr: 0,
  /** Error bits only; the rest follows from the FIFOs. */
  lineErrors: 0,
  modemDelta: 0,
  scratch: 0,
  divisor: 12, // 9600 baud of 1.8432 MHz
  /** The transmitter-holding-register-empty interrupt is armed: it was not yet seen in IIR. */
  transmitPending: false,
  fifo: new Uint8Array(FIFO_SIZE),
  fifoHead: 0,
  fifoCount: 0,
})

const TYPE = 'uart16550'

/** Sends at once, independent of the divisor: the holding register is empty when the write returns. */
export class Uart16550 implements Device, ByteRegisters {
  readonly #state = powerOn()
  readonly #input = new InputQueue()
  readonly #out = new Uint8Array(1)
  readonly #console: ConsoleBackend
  readonly #line: InterruptLine
  readonly #detach: () => void
  readonly #bytesIn: Counter
  readonly #bytesOut: Counter
  readonly #bytesLost: Counter
  readonly #interrupts: Counter
  #raised = false

  constructor(context: DeviceContext, port: number, line: InterruptLine, console: ConsoleBackend) {
    this.#console = console
    this.#line = line
    this.#bytesIn = context.metrics.counter('bytesIn', 'bytes the guest read', 'bytes')
    this.#bytesOut = context.metrics.counter('bytesOut', 'bytes the guest sent', 'bytes')
    this.#bytesLost = context.metrics.counter('bytesLost', 'bytes from the console that found no room', 'bytes')
    this.#interrupts = context.metrics.counter('interrupts', 'times the interrupt line was raised')
    context.portIo(port, 8, new BytePorts(this, 8))
    this.#detach = console.onInput((bytes) => {
      this.#bytesLost.value += bytes.length - this.#input.push(bytes)
      this.#receive()
      this.#update()
    })
  }

  readByte(offset: number): number {
    const state = this.#state
    const divisorLatch = (state.lcr & Lcr.divisorLatch) !== 0
    switch (offset) {
      case Register.data:
        return divisorLatch ? state.divisor & 0xff : this.#readData()
      case Register.ier:
        return divisorLatch ? state.divisor >> 8 : state.ier
      case Register.iirFcr: {
        const iir = this.#identify()
        // Seeing it in IIR takes the transmit interrupt back. (PC16550D, "Interrupt Control Functions")
        if (iir === Iir.transmitEmpty) {
          state.transmitPending = false
          this.#update()
        }
        return iir | (state.fcr & Fcr.enable ? Iir.fifos : 0)
      }
      case Register.lcr:
        return state.lcr
      case Register.mcr:
        return state.mcr
      case Register.lsr: {
        const lsr = state.lineErrors | (state.fifoCount ? Lsr.dataReady : 0) | Lsr.holdingEmpty | Lsr.transmitterEmpty
        state.lineErrors = 0
        this.#update()
        return lsr
      }
      case Register.msr: {
        const msr = this.#modemLines() | state.modemDelta
        state.modemDelta = 0
        this.#update()
        return msr
      }
      default:
        return state.scratch
    }
  }

  writeByte(offset: number, value: number): void {
    const state = this.#state
    const divisorLatch = (state.lcr & Lcr.divisorLatch) !== 0
    switch (offset) {
      case Register.data:
        if (divisorLatch) state.divisor = (state.divisor & 0xff00) | value
        else this.#send(value)
        break
      case Register.ier:
        if (divisorLatch) {
          state.divisor = (state.divisor & 0xff) | (value << 8)
          break
        }
        // Enabling it while the register is empty raises it at once: drivers start sending with that.
        if (value & ~state.ier & Ier.transmitEmpty) state.transmitPending = true
        state.ier = value & Ier.all
        break
      case Register.iirFcr:
        // Turning the FIFOs on or off empties them; the other bits count only together with the enable bit.
        if ((value ^ state.fcr) & Fcr.enable || (value & Fcr.enable && value & Fcr.clearReceive)) state.fifoCount = 0
        state.fcr = value & Fcr.enable ? value & ~(Fcr.clearReceive | Fcr.clearTransmit) & 0xc9 : 0
        this.#receive()
        break
      case Register.lcr:
        state.lcr = value
        break
      case Register.mcr: {
        const before = this.#modemLines()
        state.mcr = value & Mcr.all
        const changed = before ^ this.#modemLines()
        state.modemDelta |= (changed & (Msr.cts | Msr.dsr | Msr.dcd)) >> 4
        if (before & changed & Msr.ring) state.modemDelta |= Msr.trailingRing
        this.#receive()
        break
      }
      case Register.scratch:
        state.scratch = value
        break
    }
    this.#update()
  }

  #readData(): number {
    const state = this.#state
    if (state.fifoCount === 0) return 0
    const byte = state.fifo[state.fifoHead]!
    state.fifoHead = (state.fifoHead + 1) % FIFO_SIZE
    state.fifoCount--
    this.#bytesIn.value++
    this.#receive()
    this.#update()
    return byte
  }

  #send(byte: number): void {
    const state = this.#state
    if (state.mcr & Mcr.loop) {
      if (state.fifoCount < this.#capacity()) this.#push(byte)
      else state.lineErrors |= Lsr.overrun
    } else {
      this.#out[0] = byte
      this.#console.write(this.#out)
      this.#bytesOut.value++
    }
    state.transmitPending = true
  }

  #capacity(): number {
    return this.#state.fcr & Fcr.enable ? FIFO_SIZE : 1
  }

  #push(byte: number): void {
    const state = this.#state
    state.fifo[(state.fifoHead + state.fifoCount++) % FIFO_SIZE] = byte
  }

  /** Take from the console what there is room for: what waits there waits as on a terminal with flow control. */
  #receive(): void {
    if (this.#state.mcr & Mcr.loop) return
    const capacity = this.#capacity()
    while (this.#state.fifoCount < capacity && this.#input.length) this.#push(this.#input.shift())
  }

  /** Loopback joins RTS to CTS, DTR to DSR, OUT1 to RI, OUT2 to DCD; else a terminal is there and ready. */
  #modemLines(): number {
    const mcr = this.#state.mcr
    if (!(mcr & Mcr.loop)) return Msr.cts | Msr.dsr | Msr.dcd
    return (
      (mcr & Mcr.rts ? Msr.cts : 0) |
      (mcr & Mcr.dtr ? Msr.dsr : 0) |
      (mcr & Mcr.out1 ? Msr.ring : 0) |
      (mcr & Mcr.out2 ? Msr.dcd : 0)
    )
  }

  #identify(): number {
    const state = this.#state
    if (state.ier & Ier.lineStatus && state.lineErrors & Lsr.errors) return Iir.lineStatus
    if (state.ier & Ier.received && state.fifoCount) {
      // Below the trigger level nothing more is on its way (else it were in the FIFO), so the four characters' time-out is over.
      const trigger = state.fcr & Fcr.enable ? TRIGGER_LEVELS[(state.fcr >> 6) as 0 | 1 | 2 | 3] : 1
      return state.fifoCount >= trigger ? Iir.received : Iir.timeout
    }
    if (state.ier & Ier.transmitEmpty && state.transmitPending) return Iir.transmitEmpty
    if (state.ier & Ier.modemStatus && state.modemDelta) return Iir.modemStatus
    return Iir.none
  }

  /** OUT2 lets the interrupt through to the PC's bus; loopback disconnects it. */
  #update(): void {
    const wanted = this.#identify() !== Iir.none && (this.#state.mcr & (Mcr.out2 | Mcr.loop)) === Mcr.out2
    if (wanted === this.#raised) return
    this.#raised = wanted
    if (wanted) {
      this.#interrupts.value++
      this.#line.raise()
    } else this.#line.lower()
  }

  reset(): void {
    assignState(this.#state, powerOn())
    this.#receive()
    this.#update()
  }

  save(): Snapshot {
    const saved = saveState(TYPE, 1, this.#state)
    return { ...saved, data: { ...saved.data, input: this.#input.peek() } }
  }

  restore(snapshot: Snapshot): void {
    restoreState(snapshot, TYPE, 1, this.#state)
    this.#input.clear()
    this.#input.push(snapshotData(snapshot, TYPE, 1)['input'] as Uint8Array)
    this.#update()
  }

  async quiesce(): Promise<void> {
    await this.#console.drain?.()
  }

  dispose(): void {
    this.#detach()
  }
}
