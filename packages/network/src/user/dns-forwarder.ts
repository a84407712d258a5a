/** The name server of the user-mode network: addresses by the host's resolver, anything else from the host's name server. Independent of frames. */

import type { DatagramSocket, HostNetwork } from '@nonroot/contracts'
import ipaddr from 'ipaddr.js'
import { DNS_PORT, dnsAnswer, DnsType, parseQuestion } from './dns.ts'
import type { Question } from './dns.ts'

/** Queries under way; more are not answered, and asked again. */
const MOST_PENDING = 256
/** Clients ask again sooner. */
const LIFE_NS = 10e9
const DNS_HEADER = 12

interface Pending {
  readonly id: number
  readonly question: Uint8Array
  readonly answer: (message: Uint8Array) => void
  readonly expiresNs: number
}

export class DnsForwarder {
  readonly #host: HostNetwork
  readonly #nowNs: () => number
  /** By our transaction ID. */
  readonly #pending = new Map<number, Pending>()
  #lookups = 0
  #socket: Promise<DatagramSocket> | undefined
  #server: string | undefined
  #closed = false

  constructor(host: HostNetwork, nowNs: () => number) {
    this.#host = host
    this.#nowNs = nowNs
  }

  /** `answer` may come later, or never. `query` is valid during the call only. */
  ask(query: Uint8Array, answer: (message: Uint8Array) => void): void {
    const question = parseQuestion(query)
    if (question && (question.type === DnsType.a || question.type === DnsType.aaaa)) {
      if (this.#lookups < MOST_PENDING) void this.#lookUp(query.slice(), question, answer)
    } else if (query.length >= DNS_HEADER) void this.#forward(query.slice(), answer)
  }

  async #lookUp(query: Uint8Array, question: Question, answer: (message: Uint8Array) => void): Promise<void> {
    this.#lookups++
    try {
      const family = question.type === DnsType.a ? 4 : 6
      const found = await this.#host.lookUp(question.name, family)
      const addresses = found.map((text) => Uint8Array.from(ipaddr.parse(text.replace(/%.*$/, '')).toByteArray()))
      this.#say(answer, dnsAnswer(query, question, 'noError', addresses))
    } catch (error) {
      const missing = (error as { code?: unknown }).code === 'ENOTFOUND'
      this.#say(answer, dnsAnswer(query, question, missing ? 'noSuchName' : 'serverFailure'))
    } finally {
      this.#lookups--
    }
  }

  #say(answer: (message: Uint8Array) => void, message: Uint8Array): void {
    if (!this.#closed) answer(message)
  }

  async #forward(query: Uint8Array, answer: (message: Uint8Array) => void): Promise<void> {
    this.#expire()
    if (this.#pending.size >= MOST_PENDING) return
    const [server] = this.#host.nameServers()
    if (server === undefined) return
    try {
      if (server !== this.#server) {
        void this.#socket?.then((socket) => socket.close())
        this.#server = server
        this.#socket = this.#open(server)
      }
      const socket = await this.#socket!
      const view = new DataView(query.buffer)
      const id = this.#freeId()
      this.#pending.set(id, {
        id: view.getUint16(0),
        question: query.slice(DNS_HEADER),
        answer,
        expiresNs: this.#nowNs() + LIFE_NS,
      })
      view.setUint16(0, id)
      socket.send(query, server, DNS_PORT)
    } catch {
      this.#server = this.#socket = undefined
    }
  }

  #open(server: string): Promise<DatagramSocket> {
    return this.#host.datagrams(server.includes(':') ? 6 : 4, {
      datagram: (bytes, host, port) => {
        if (port === DNS_PORT && host === server && bytes.length >= DNS_HEADER) this.#answered(bytes.slice())
      },
      refused: () => {},
    })
  }

  #freeId(): number {
    const bytes = new Uint8Array(2)
    for (;;) {
      this.#host.random(bytes)
      const id = (bytes[0]! << 8) | bytes[1]!
      if (!this.#pending.has(id)) return id
    }
  }

  /** Only what repeats the question is its answer. */
  #answered(message: Uint8Array): void {
    const view = new DataView(message.buffer)
    const pending = this.#pending.get(view.getUint16(0))
    if (!pending) return
    const asked = parsedLength(pending.question)
    for (let at = 0; at < asked; at++) if (message[DNS_HEADER + at] !== pending.question[at]) return
    this.#pending.delete(view.getUint16(0))
    view.setUint16(0, pending.id)
    this.#say(pending.answer, message)
  }

  #expire(): void {
    const now = this.#nowNs()
    for (const [id, { expiresNs }] of this.#pending) {
      // In the order of asking.
      if (expiresNs > now) break
      this.#pending.delete(id)
    }
  }

  close(): void {
    this.#closed = true
    this.#pending.clear()
    void this.#socket?.then(
      (socket) => socket.close(),
      () => {},
    )
  }
}

/** Bytes of the first question, from its name on: what follows may be changed by a server (EDNS). */
function parsedLength(question: Uint8Array): number {
  let at = 0
  while (at < question.length && question[at] !== 0) at += question[at]! + 1
  return Math.min(at + 5, question.length)
}
