/** 8042 keyboard controller with a keyboard; there is no mouse. (IBM PS/2 technical reference, "Keyboard/Auxiliary Device Controller") */

import { snapshotData } from '@nonroot/contracts'
import type { Device, DeviceContext, InterruptLine, PowerControl, Snapshot } from '@nonroot/contracts'
import { BytePorts } from './byte-ports.ts'
import { Keyboard } from './keyboard.ts'
import { assignState, restoreState, saveState } from './state.ts'

const Status = { outputFull: 0x01, systemFlag: 0x04, command: 0x08, unlocked: 0x10 } as const
/** Command byte. */
const Control = {
  interrupt: 0x01,
  systemFlag: 0x04,
  keyboardDisabled: 0x10,
  auxiliaryDisabled: 0x20,
  translate: 0x40,
} as const
const OutputPort = { notReset: 0x01, a20: 0x02, outputFull: 0x10 } as const
const Command = {
  readControl: 0x20,
  writeControl: 0x60,
  disableAuxiliary: 0xa7,
  enableAuxiliary: 0xa8,
  testAuxiliary: 0xa9,
  selfTest: 0xaa,
  testKeyboard: 0xab,
  disableKeyboard: 0xad,
  enableKeyboard: 0xae,
  readInputPort: 0xc0,
  readOutputPort: 0xd0,
  writeOutputPort: 0xd1,
  writeKeyboardBuffer: 0xd2,
  writeAuxiliaryBuffer: 0xd3,
  writeAuxiliary: 0xd4,
  pulse: 0xf0,
} as const
const SELF_TEST_PASSED = 0x55
const INTERFACE_PASSED = 0x00
/** Auxiliary clock line stuck high: what a port without a device reports. */
const INTERFACE_FAILED = 0x02
const NO_ANSWER = -1

const powerOn = () => ({
  control: Control.interrupt | Control.translate | Control.auxiliaryDisabled,
  outputPort: OutputPort.notReset | OutputPort.a20,
  /** Command whose data byte comes next at port 0x60, or 0: the byte is for the keyboard. */
  expects: 0,
  lastWasCommand: false,
  passedSelfTest: false,
  /** A byte of the controller's own, ahead of the keyboard's, or -1. */
  answer: NO_ANSWER as number,
  memory: new Uint8Array(32),
})

const TYPE = 'i8042'

export class I8042 implements Device {
  readonly keyboard = new Keyboard(() => this.#update())
  readonly #state = powerOn()
  readonly #power: PowerControl
  readonly #line: InterruptLine

  constructor(context: Pick<DeviceContext, 'portIo' | 'power'>, line: InterruptLine) {
    this.#power = context.power
    this.#line = line
    const data = {
      readByte: () => this.#readData(),
      writeByte: (_offset: number, value: number) => this.#writeData(value),
    }
    const command = {
      readByte: () => this.#status(),
      writeByte: (_offset: number, value: number) => this.#command(value),
    }
    context.portIo(0x60, 1, new BytePorts(data, 1))
    context.portIo(0x64, 1, new BytePorts(command, 1))
  }

  #keyboardTalks(): boolean {
    return !(this.#state.control & Control.keyboardDisabled) && this.keyboard.waiting > 0
  }

  #status(): number {
    const { answer, lastWasCommand, passedSelfTest } = this.#state
    const full = answer !== NO_ANSWER || this.#keyboardTalks()
    return (
      Status.unlocked |
      (full ? Status.outputFull : 0) |
      (lastWasCommand ? Status.command : 0) |
      (passedSelfTest ? Status.systemFlag : 0)
    )
  }

  #readData(): number {
    const state = this.#state
    const { answer } = state
    // Lowered between two bytes, so that each is an edge.
    this.#line.lower()
    if (answer !== NO_ANSWER) {
      state.answer = NO_ANSWER
      this.#update()
      return answer
    }
    // An empty buffer shows what was read last, as hardware does.
    const byte = this.#keyboardTalks() ? this.keyboard.take() : this.keyboard.last
    this.#update()
    return byte
  }

  #answer(value: number): void {
    this.#state.answer = value
    this.#update()
  }

  #command(value: number): void {
    const state = this.#state
    state.lastWasCommand = true
    state.expects = 0
    if (value >= Command.readControl && value < Command.readControl + 32) {
      return this.#answer(value === Command.readControl ? state.control : state.memory[value & 31]!)
    }
    if (value >= Command.writeControl && value < Command.writeControl + 32) {
      state.expects = value
      return
    }
    if (value >= Command.pulse) {
      if (!(value & OutputPort.notReset)) this.#power.reset()
      return
    }
    switch (value) {
      case Command.selfTest:
        state.passedSelfTest = true
        return this.#answer(SELF_TEST_PASSED)
      case Command.testKeyboard:
        return this.#answer(INTERFACE_PASSED)
      case Command.testAuxiliary:
        return this.#answer(INTERFACE_FAILED)
      case Command.disableAuxiliary:
        return this.#setControl(state.control | Control.auxiliaryDisabled)
      case Command.enableAuxiliary:
        return this.#setControl(state.control & ~Control.auxiliaryDisabled)
      case Command.disableKeyboard:
        return this.#setControl(state.control | Control.keyboardDisabled)
      case Command.enableKeyboard:
        return this.#setControl(state.control & ~Control.keyboardDisabled)
      case Command.readInputPort:
        return this.#answer(0x80) // not locked
      case Command.readOutputPort:
        return this.#answer(state.outputPort | (this.#status() & Status.outputFull ? OutputPort.outputFull : 0))
      case Command.writeOutputPort:
      case Command.writeKeyboardBuffer:
      case Command.writeAuxiliaryBuffer:
      case Command.writeAuxiliary:
        state.expects = value
    }
  }

  #writeData(value: number): void {
    const state = this.#state
    const command = state.expects
    state.expects = 0
    state.lastWasCommand = false
    if (command === 0) {
      // Talking to the keyboard turns it on.
      state.control &= ~Control.keyboardDisabled
      this.keyboard.command(value, (state.control & Control.translate) !== 0)
      return this.#update()
    }
    switch (command) {
      case Command.writeControl:
        return this.#setControl(value)
      case Command.writeOutputPort:
        state.outputPort = value & (OutputPort.notReset | OutputPort.a20)
        if (!(value & OutputPort.notReset)) this.#power.reset()
        return
      case Command.writeKeyboardBuffer:
      case Command.writeAuxiliaryBuffer: // not marked as the auxiliary's: so a driver sees that there is none
        return this.#answer(value)
      case Command.writeAuxiliary:
        return
    }
    state.memory[command & 31] = value
  }

  #setControl(value: number): void {
    this.#state.control = value
    if (value & Control.systemFlag) this.#state.passedSelfTest = true
    this.#update()
  }

  /** The line is up while a byte waits that interrupts. */
  #update(): void {
    const { control, answer } = this.#state
    if (control & Control.interrupt && (answer !== NO_ANSWER || this.#keyboardTalks())) this.#line.raise()
    else this.#line.lower()
  }

  reset(): void {
    assignState(this.#state, powerOn())
    this.keyboard.reset()
    this.#update()
  }

  save(): Snapshot {
    const saved = saveState(TYPE, 1, this.#state)
    return { ...saved, data: { ...saved.data, keyboard: this.keyboard.save().data } }
  }

  restore(snapshot: Snapshot): void {
    restoreState(snapshot, TYPE, 1, this.#state)
    const data = snapshotData(snapshot, TYPE, 1)['keyboard'] as Snapshot['data']
    this.keyboard.restore({ type: 'keyboard', version: 1, data })
    this.#update()
  }
}
