/**
 * One AHCI port with a disk on it: registers, command slots, execution of commands. Independent of PCI.
 *
 *   stopped --ST=1--> running --failed command--> failed --ST=0--> stopped
 *   PxCMD.CR stays set until what was under way has ended: then the guest has its memory back.
 */

import { snapshotData } from '@nonroot/contracts'
import type { DeviceContext, Snapshot } from '@nonroot/contracts'
import { restoreState, saveState } from '../state.ts'
import { SIGNATURE } from '../ata/disk.ts'
import type { AtaDisk, Outcome } from '../ata/disk.ts'
import { AtaStatus, COMMANDS } from '../ata/facts.ts'
import { CommandList } from './command-list.ts'
import type { SlotCommand } from './command-list.ts'
import { FisReceiver } from './received-fis.ts'
import {
  Command,
  Detection,
  DETECTION,
  DISK_SIGNATURE,
  LINK_UP,
  NO_DEVICE,
  NO_SIGNATURE,
  Port,
  PortInterrupt,
  SataError,
  SLOTS,
  SOFT_RESET,
} from './registers.ts'

const TYPE = 'ahci-port'
const ATA_MASK = 0xff
const powerOn = () => ({
  commandList: 0,
  commandListUpper: 0,
  fis: 0,
  fisUpper: 0,
  interruptStatus: 0,
  interruptEnable: 0,
  command: Command.spinUp | Command.powerOn,
  taskFile: NO_DEVICE,
  signature: NO_SIGNATURE,
  sataControl: 0,
  sataError: 0,
  sataActive: 0,
  commandIssue: 0,
  /** A command failed: no other begins until the guest has stopped and started the port. */
  failed: false,
  softReset: false,
  /** The disk's signature waits for FIS receive to be enabled. */
  signaturePending: false,
})

export class AhciPort {
  readonly #disk: AtaDisk
  readonly #list: CommandList
  readonly #receiver: FisReceiver
  readonly #memory: DeviceContext['dma']
  /** Something enabled is pending that was not. */
  readonly #interrupt: () => void
  readonly #state = powerOn()
  /** Slots that the disk works on, and how many commands of before a stop it still does. */
  #active = 0
  #queuedActive = false
  #stale = 0
  #era = 0
  #idle: (() => void)[] = []

  constructor(disk: AtaDisk, memory: DeviceContext['dma'], interrupt: () => void) {
    this.#disk = disk
    this.#memory = memory
    this.#list = new CommandList(memory)
    this.#receiver = new FisReceiver(memory)
    this.#interrupt = interrupt
    this.#connect()
  }

  get pending(): boolean {
    return (this.#interruptStatus & this.#state.interruptEnable) !== 0
  }

  /** Is nothing of before a stop or reset under way? */
  get settled(): boolean {
    return this.#stale === 0
  }

  get #interruptStatus(): number {
    const { sataError, interruptStatus } = this.#state
    return (
      interruptStatus |
      (sataError & SataError.exchanged ? PortInterrupt.connectChange : 0) |
      (sataError & SataError.phyChange ? PortInterrupt.phyChange : 0)
    )
  }

  #raise(bits: number): void {
    this.#state.interruptStatus |= bits
    if (bits & this.#state.interruptEnable) this.#interrupt()
  }

  // Registers

  read(offset: number): number {
    const state = this.#state
    switch (offset) {
      case Port.commandList:
        return state.commandList
      case Port.commandListUpper:
        return state.commandListUpper
      case Port.fis:
        return state.fis
      case Port.fisUpper:
        return state.fisUpper
      case Port.interruptStatus:
        return this.#interruptStatus >>> 0
      case Port.interruptEnable:
        return state.interruptEnable >>> 0
      case Port.command:
        return this.#command()
      case Port.taskFile:
        return state.taskFile
      case Port.signature:
        return state.signature
      case Port.sataStatus:
        return this.#detection === Detection.none ? LINK_UP : this.#detection === Detection.offline ? 4 : 0
      case Port.sataControl:
        return state.sataControl
      case Port.sataError:
        return state.sataError >>> 0
      case Port.sataActive:
        return state.sataActive >>> 0
      case Port.commandIssue:
        return state.commandIssue >>> 0
      default:
        return 0
    }
  }

  write(offset: number, value: number): void {
    const state = this.#state
    switch (offset) {
      case Port.commandList:
        state.commandList = (value & ~0x3ff) >>> 0
        break
      case Port.commandListUpper:
        state.commandListUpper = value
        break
      case Port.fis:
        state.fis = (value & ~0xff) >>> 0
        this.#follow()
        break
      case Port.fisUpper:
        state.fisUpper = value
        this.#follow()
        break
      case Port.interruptStatus:
        state.interruptStatus &= ~value
        break
      case Port.interruptEnable:
        state.interruptEnable = value & PortInterrupt.enableMask
        if (this.pending) this.#interrupt()
        break
      case Port.command:
        this.#writeCommand(value)
        break
      case Port.sataControl:
        this.#writeControl(value)
        break
      case Port.sataError:
        state.sataError &= ~value
        break
      case Port.sataActive:
        if (state.command & Command.start) state.sataActive |= value
        break
      case Port.commandIssue:
        if (!(state.command & Command.start)) break
        state.commandIssue |= value
        this.#issue()
    }
  }

  #command(): number {
    const { command } = this.#state
    const running = command & Command.start || this.#stale > 0 ? Command.running : 0
    return (command | running | (command & Command.fisReceive ? Command.fisRunning : 0)) >>> 0
  }

  #writeCommand(value: number): void {
    const state = this.#state
    const started = (state.command & Command.start) !== 0
    state.command = (state.command & ~Command.writable) | (value & Command.writable)
    this.#follow()
    if (value & Command.commandListOverride) state.taskFile &= ~(AtaStatus.busy | AtaStatus.request)
    const start = (value & Command.start) !== 0
    if (start === started) return
    if (start) state.failed = false
    else this.#stop()
  }

  /** Where FISes go now; the signature that waited for it. */
  #follow(): void {
    const { command, fis, fisUpper } = this.#state
    this.#receiver.base = command & Command.fisReceive ? fisUpper * 2 ** 32 + fis : undefined
    if (command & Command.fisReceive && this.#state.signaturePending) this.#sendSignature()
  }

  #stop(): void {
    const state = this.#state
    state.sataActive = state.commandIssue = 0
    state.command &= ~(0x1f << Command.currentSlot)
    this.#abandon()
  }

  /** What is under way ends unheard of. */
  #abandon(): void {
    this.#era++
    for (let slots = this.#active; slots !== 0; slots &= slots - 1) this.#stale++
    this.#active = 0
  }

  // Link and device reset

  get #detection(): number {
    return this.#state.sataControl & DETECTION
  }

  #writeControl(value: number): void {
    const before = this.#detection
    this.#state.sataControl = value & 0xfff
    if (this.#detection === before) return
    if (this.#detection !== Detection.none) {
      this.#abandon()
      this.#state.taskFile = NO_DEVICE
    } else this.#connect()
  }

  /** COMRESET is over: the link is up, the disk says what it is. */
  #connect(): void {
    const state = this.#state
    state.sataError |= SataError.exchanged | SataError.phyChange
    state.taskFile = NO_DEVICE | AtaStatus.busy
    state.failed = state.softReset = false
    state.signaturePending = true
    if (this.pending) this.#interrupt()
    this.#follow()
    // Registers show it whether or not the FIS could be left anywhere.
    this.#showSignature()
  }

  #showSignature(): void {
    this.#state.signature = DISK_SIGNATURE
    this.#state.taskFile = SIGNATURE.status | (SIGNATURE.error << 8)
  }

  #sendSignature(): void {
    this.#state.signaturePending = false
    this.#showSignature()
    if (!this.#receiver.registers(SIGNATURE, false)) this.#hostBusFatal()
  }

  #hostBusFatal(): void {
    this.#state.failed = true
    this.#raise(PortInterrupt.hostBusFatal)
  }

  // Commands

  /** Begin what was issued and may begin. Queued commands run side by side, others by themselves. */
  #issue(): void {
    const state = this.#state
    for (let slot = 0; slot < SLOTS; slot++) {
      const bit = 1 << slot
      if (!(state.commandIssue & bit) || this.#active & bit) continue
      if (state.failed || this.#stale > 0 || !(state.command & Command.start) || this.#detection !== Detection.none)
        return
      const base = state.commandListUpper * 2 ** 32 + state.commandList
      const command = this.#list.read(base, slot)
      if (command === 'hostBus') return this.#hostBusFatal()
      if (command === 'malformed') this.#finish(slot, undefined, MALFORMED, false)
      else if (!command.isCommand) this.#control(slot, command.control)
      else if (!this.#begin(slot, command)) return
    }
  }

  /** False: it has to wait for others. */
  #begin(slot: number, command: SlotCommand): boolean {
    const state = this.#state
    const queued = COMMANDS.get(command.registers.command)?.queued === true
    if (this.#active !== 0 && !(queued && this.#queuedActive)) return false
    const bit = 1 << slot
    this.#active |= bit
    this.#queuedActive = queued
    if (queued) {
      // The disk takes it at once and is ready for the next: PxCI says so, PxSACT when it is over.
      state.commandIssue &= ~bit
      state.sataActive |= bit
    } else {
      state.command = (state.command & ~(0x1f << Command.currentSlot)) | (slot << Command.currentSlot)
      state.taskFile |= AtaStatus.busy
    }
    const outcome = this.#disk.execute(command.registers, command.data)
    if (!(outcome instanceof Promise)) {
      this.#finish(slot, command, outcome, queued)
      return true
    }
    const era = this.#era
    void outcome.then((result) => {
      if (era !== this.#era) this.#stale--
      else this.#finish(slot, command, result, queued)
      this.#issue()
      if (this.#stale === 0 && this.#active === 0) for (const resolve of this.#idle.splice(0)) resolve()
    })
    return true
  }

  #finish(slot: number, command: SlotCommand | undefined, outcome: Outcome, queued: boolean): void {
    const state = this.#state
    const bit = 1 << slot
    const failed = (outcome.status & AtaStatus.error) !== 0
    this.#active &= ~bit
    if (outcome.overflow) this.#raise(PortInterrupt.overflow)
    state.taskFile = (outcome.status & ATA_MASK) | (outcome.error << 8)
    if (command && !queued && !this.#memory.writeU32(command.transferredAt, outcome.bytes)) return this.#hostBusFatal()
    if (queued) return this.#finishQueued(slot, outcome, failed)
    const pioIn = !failed && COMMANDS.get(command?.registers.command ?? 0)?.protocol === 'pioIn'
    const posted = pioIn ? this.#receiver.pioSetup(outcome) : this.#receiver.registers(outcome, true)
    if (!posted) return this.#hostBusFatal()
    if (failed) {
      state.failed = true
      this.#raise(PortInterrupt.taskFileError | PortInterrupt.deviceToHost)
    } else {
      state.commandIssue &= ~bit
      this.#raise(pioIn ? PortInterrupt.pioSetup : PortInterrupt.deviceToHost)
    }
  }

  #finishQueued(slot: number, outcome: Outcome, failed: boolean): void {
    const state = this.#state
    if (failed) {
      // The disk ends all the others with it; which one failed is in its log.
      this.#disk.noteQueuedError(slot, outcome)
      state.failed = true
      this.#abandon()
    } else state.sataActive &= ~(1 << slot)
    if (!this.#receiver.setDeviceBits(outcome.status, outcome.error, failed ? 0 : 1 << slot))
      return this.#hostBusFatal()
    this.#raise(PortInterrupt.setDeviceBits | (failed ? PortInterrupt.taskFileError : 0))
  }

  /** A control FIS: SRST set, then cleared, resets the disk. */
  #control(slot: number, control: number): void {
    const state = this.#state
    state.commandIssue &= ~(1 << slot)
    const reset = (control & SOFT_RESET) !== 0
    if (state.softReset && !reset) this.#sendSignature()
    state.softReset = reset
  }

  // Life

  /** Power up, or the controller's reset. */
  reset(): void {
    this.#abandon()
    Object.assign(this.#state, powerOn())
    this.#disk.reset()
    this.#receiver.base = undefined
    this.#connect()
  }

  async quiesce(): Promise<void> {
    if (this.#stale > 0 || this.#active !== 0) await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  save(): Snapshot {
    const disk = this.#disk.save()
    return { ...saveState(TYPE, 1, this.#state), data: { ...saveState(TYPE, 1, this.#state).data, disk: disk.data } }
  }

  restore(snapshot: Snapshot): void {
    const data = snapshotData(snapshot, TYPE, 1)
    restoreState(snapshot, TYPE, 1, this.#state)
    this.#disk.restore({ type: 'ata-disk', version: 1, data: data['disk'] as Snapshot['data'] })
    this.#abandon()
    this.#follow()
  }
}

/** What a disk makes of a frame that is no command. */
const MALFORMED: Outcome = { status: SIGNATURE.status | AtaStatus.error, error: 0x04, lba: 0, count: 0, bytes: 0 }
