/** The transmit ring: makes frames of descriptors, and leaves checksums and segmentation to the network. Independent of all registers except the ring's. @hot */

import { createFrameWork, LONGEST_FRAME, SHORTEST_FRAME } from '@nonroot/contracts'
import type { CableEnd, DmaMemory } from '@nonroot/contracts'
import { Cause, ContextCommand, DESCRIPTOR, Reg, Tx, TxCommand, TxOption } from './registers.ts'

const IP = 14
const CONTEXT_TYPE = 0
const DATA_TYPE = 1

export interface TransmitHost {
  readonly registers: Uint32Array
  readonly memory: DmaMemory
  readonly far: CableEnd
  cause(bits: number): void
  sent(bytes: number): void
  dropped(): void
}

export class Transmitter {
  /** The network had no room. */
  blocked = false
  readonly #host: TransmitHost
  readonly #descriptor = new Uint8Array(DESCRIPTOR)
  readonly #view = new DataView(this.#descriptor.buffer)
  readonly #frame = new Uint8Array(LONGEST_FRAME)
  readonly #frameView = new DataView(this.#frame.buffer)
  readonly #work = createFrameWork()
  /** The last context descriptor, which holds until the next: checksum places, MSS, commands. */
  readonly context = new Uint8Array(DESCRIPTOR)
  readonly #contextView = new DataView(this.context.buffer)

  constructor(host: TransmitHost) {
    this.#host = host
  }

  reset(): void {
    this.blocked = false
    this.context.fill(0)
  }

  /** TDT moved, or the network has room: send what is there. */
  run(): void {
    const { registers, memory } = this.#host
    const count = registers[Reg.tdlen >> 2]! / DESCRIPTOR
    const base = registers[Reg.tdbah >> 2]! * 2 ** 32 + registers[Reg.tdbal >> 2]!
    let head = registers[Reg.tdh >> 2]!
    const tail = registers[Reg.tdt >> 2]!
    if (head >= count || tail >= count) return
    let first = head
    let length = 0
    let report = false
    // A ring goes round once at most.
    for (let left = count; head !== tail && left > 0; left--) {
      const at = base + head * DESCRIPTOR
      if (!memory.readBytes(at, this.#descriptor)) break
      head = head + 1 === count ? 0 : head + 1
      const command = this.#descriptor[Tx.command]!
      report ||= (command & TxCommand.report) !== 0
      if (this.#isContext(command)) {
        this.context.set(this.#descriptor)
        this.#done(at, command)
        first = head
        continue
      }
      length = this.#gather(length)
      if (!(command & TxCommand.end)) continue
      if (length >= 0 && !this.#send(length)) {
        this.blocked = true
        head = first
        break
      }
      if (length < 0) this.#host.dropped()
      length = 0
      first = this.#report(first, head, base, count)
    }
    // Descriptors of a frame whose end is not there yet are read again with it.
    registers[Reg.tdh >> 2] = length > 0 ? first : head
    if (report) this.#host.cause(Cause.transmitted)
  }

  #isContext(command: number): boolean {
    return (command & TxCommand.extended) !== 0 && this.#descriptor[10]! >> 4 === CONTEXT_TYPE
  }

  /** A descriptor's bytes, behind those of the frame so far. -1: there is no such memory, or no such frame. */
  #gather(length: number): number {
    const view = this.#view
    const extended = (this.#descriptor[Tx.command]! & TxCommand.extended) !== 0
    if (extended && this.#descriptor[10]! >> 4 !== DATA_TYPE) return -1
    const size = extended ? view.getUint32(Tx.length, true) & 0xfffff : view.getUint16(Tx.length, true)
    if (length < 0 || length + size > LONGEST_FRAME) return -1
    const address = view.getUint32(4, true) * 2 ** 32 + view.getUint32(0, true)
    if (size > 0 && !this.#host.memory.readBytes(address, this.#frame.subarray(length, length + size))) return -1
    return length + size
  }

  /** Status of all descriptors of a frame, where they ask for it. Gives where the next frame begins. */
  #report(first: number, end: number, base: number, count: number): number {
    for (let index = first; index !== end; index = index + 1 === count ? 0 : index + 1) {
      const at = base + index * DESCRIPTOR
      this.#done(at, this.#host.memory.readU8(at + Tx.command) ?? 0)
    }
    return end
  }

  #done(at: number, command: number): void {
    if (command & TxCommand.report) this.#host.memory.writeU8(at + Tx.status, 1)
  }

  /** False: there is no room. */
  #send(length: number): boolean {
    const { far } = this.#host
    const frame = this.#frame.subarray(0, length)
    if (length < SHORTEST_FRAME || !this.#prepare(length)) {
      this.#host.dropped()
      return true
    }
    if (!far.receive(frame, this.#work)) return false
    this.#host.sent(length)
    return true
  }

  /** What the last descriptor of the frame asks the card to do. False: that makes no sense. */
  #prepare(length: number): boolean {
    const work = this.#work
    const descriptor = this.#descriptor
    const command = descriptor[Tx.command]!
    work.checksumStart = -1
    work.segmentSize = work.segmentIp = 0
    if (!(command & TxCommand.extended)) {
      if (command & TxCommand.insertChecksum) {
        const start = descriptor[Tx.checksumStart]!
        return this.#leave(start, descriptor[Tx.checksumOffset]! - start, length)
      }
      return true
    }
    const context = this.context
    const segments = (command & TxCommand.segment) !== 0
    const options = this.#options
    const start = context[4]!
    if (segments && !this.#leaveSegments(start, length)) return false
    if (options & TxOption.ip && context[11]! & ContextCommand.ip4) this.#ipChecksum()
    if (!(options & TxOption.transport) && !segments) return true
    return this.#leave(start, context[5]! - start, length)
  }

  /** Options are the first data descriptor's; drivers set them in all. */
  get #options(): number {
    return this.#descriptor[Tx.options]!
  }

  #leave(start: number, offset: number, length: number): boolean {
    if (start < IP || offset < 0 || start + offset + 2 > length) return false
    this.#work.checksumStart = start
    this.#work.checksumOffset = offset
    return true
  }

  /** Drivers leave out lengths, which differ between segments: those of the whole are put in. */
  #leaveSegments(start: number, length: number): boolean {
    const context = this.context
    const view = this.#frameView
    const mss = this.#contextView.getUint16(Tx.mss, true)
    const four = (context[11]! & ContextCommand.ip4) !== 0
    if (mss === 0 || !(context[11]! & ContextCommand.tcp) || start < IP + 20 || start + 20 > length) return false
    if (length <= context[Tx.headerLength]! + mss) {
      // One segment: nothing is to be cut.
    } else {
      this.#work.segmentSize = mss
      this.#work.segmentIp = four ? 4 : 6
    }
    if (four) view.setUint16(IP + 2, length - IP)
    else view.setUint16(IP + 4, length - IP - 40)
    const at = start + 16
    const sum = view.getUint16(at) + (length - start)
    view.setUint16(at, (sum & 0xffff) + (sum >>> 16))
    return true
  }

  #ipChecksum(): void {
    const frame = this.#frame
    const view = this.#frameView
    const end = IP + (frame[IP]! & 15) * 4
    view.setUint16(IP + 10, 0)
    let sum = 0
    for (let at = IP; at < end; at += 2) sum += view.getUint16(at)
    while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16)
    view.setUint16(IP + 10, ~sum & 0xffff)
  }
}
