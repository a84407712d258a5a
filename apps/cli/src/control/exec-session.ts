/**
 * One client of a VM's exec socket: a command of its own in the guest. The client speaks the agent's frames (packages/image/README.md, "The agent") as if the
 * socket were the agent's port; windows are between the client and the agent, and this end only holds the client to its own.
 */

import type { Socket } from 'node:net'
import { AGENT_VERSION, AGENT_WINDOW, creditPayload, frame, FrameReader, FromAgent, GUEST_SIGNALS, ToAgent } from '@nonroot/image'
import type { SendFrame } from '@nonroot/image'
import type { NonrootError } from '@nonroot/contracts'
import type { ControlledVm } from './controlled-vm.ts'
import { MOST_WAITING } from './qmp-session.ts'

const encode = (text: string): Uint8Array => new TextEncoder().encode(text)
const LAST: readonly number[] = [FromAgent.ended, FromAgent.refused, FromAgent.lost]

export class ExecSession {
  readonly #client: Socket
  readonly #vm: ControlledVm
  readonly #frames = new FrameReader()
  /** The client's number of its command. */
  #number: number | undefined
  /** To the agent, while the command runs. */
  #send: SendFrame | undefined
  /** Bytes of input that the client may send. */
  #room = AGENT_WINDOW

  constructor(client: Socket, vm: ControlledVm) {
    this.#client = client
    this.#vm = vm
    const { agent } = vm
    if (!agent) {
      this.#refuse(`${vm.name} has no agent in its guest: ${vm.noAgent ?? 'it is still being made'}`)
      return
    }
    const stopWaiting = agent.whenReady((failure) => (failure ? this.#refuse(failure.message) : this.#ready()))
    client.on('close', () => {
      stopWaiting()
      this.#hangUp()
    })
  }

  /** Of no command: the client can have none. */
  #refuse(why: string): void {
    const remedy = `nonroot attach ${this.#vm.name} reaches its console`
    this.#client.end(frame(0, FromAgent.refused, encode(`${why}\n${remedy}`)))
  }

  #ready(): void {
    const client = this.#client
    client.on('data', (bytes) => {
      const tooLong = this.#frames.read(bytes, (number, kind, payload) => {
        if (!client.destroyed && !this.#obey(number, kind, payload)) client.destroy()
      })
      if (tooLong !== undefined) client.destroy()
    })
    client.write(frame(0, FromAgent.hello, new Uint8Array(Uint16Array.of(AGENT_VERSION, 1).buffer)))
  }

  /** False: the client breaks the protocol. */
  #obey(number: number, kind: number, payload: Uint8Array): boolean {
    if (kind === ToAgent.start) return this.#number === undefined && this.#start(number, payload)
    if (number !== this.#number) return false
    if (kind === ToAgent.input) {
      this.#room -= payload.length
      if (this.#room < 0) return false
    } else if (kind !== ToAgent.signal && kind !== ToAgent.resize && kind !== ToAgent.credit) return false
    this.#send?.(kind, payload)
    return true
  }

  #start(number: number, payload: Uint8Array): boolean {
    this.#number = number
    try {
      this.#send = this.#vm.agent!.client.relay(payload, (kind, bytes) => this.#receive(number, kind, bytes))
    } catch (error) {
      this.#client.end(frame(number, FromAgent.refused, encode((error as NonrootError).message)))
    }
    return true
  }

  #receive(number: number, kind: number, payload: Uint8Array): boolean {
    const client = this.#client
    const isLast = LAST.includes(kind)
    if (isLast) this.#send = undefined
    if (client.destroyed) {
      // No one reads it: the command shall end, not wait.
      if (kind === FromAgent.output || kind === FromAgent.errors) this.#credit(kind === FromAgent.output ? 0 : 1, payload.length)
      return isLast
    }
    if (kind === FromAgent.taken && payload.length >= 4)
      this.#room += new DataView(payload.buffer, payload.byteOffset).getUint32(0, true)
    client.write(frame(number, kind, payload))
    if (isLast) client.end()
    // A client that gives credit and does not read.
    else if (client.writableLength > MOST_WAITING) client.destroy()
    return isLast
  }

  #credit(output: 0 | 1, bytes: number): void {
    this.#send?.(ToAgent.credit, creditPayload(output, bytes))
  }

  /** As a terminal that goes away. What the client had not credited is its to have no more. */
  #hangUp(): void {
    this.#send?.(ToAgent.signal, Uint8Array.of(GUEST_SIGNALS.SIGHUP))
    this.#send?.(ToAgent.input, new Uint8Array())
    for (const output of [0, 1] as const) this.#credit(output, AGENT_WINDOW)
  }
}
