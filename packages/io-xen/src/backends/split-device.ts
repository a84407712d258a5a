/**
 * A device in two halves: the guest's driver and a back end of ours in domain 0, which find each other in the store and go through the same states.
 * (Xen, "public/io/xenbus.h")
 */

import type { GrantAccess, Gpa, Log } from '@nonroot/contracts'
import type { LocalPort, TwoLevelChannels } from '../event-channels.ts'
import type { Store, StoreConnection } from '../store/store.ts'

export const STATE = { initialising: 1, initWait: 2, initialised: 3, connected: 4, closing: 5, closed: 6 } as const
type State = (typeof STATE)[keyof typeof STATE]

/** Values by name, relative to a half's own folder. */
export type Nodes = Readonly<Record<string, string | number>>

/** What a kind of device does in domain 0. */
export interface SplitDriver {
  /** As paths in the store name it. */
  readonly type: 'vbd' | 'vif'
  /** The device's number among those of its type. */
  readonly handle: number
  /** What each half finds before the guest runs. */
  readonly frontend: Nodes
  readonly backend: Nodes
  /** The guest offers rings and ports. What it finds then; or, in words, why it is refused. */
  connect(guest: FrontEnd): Nodes | string
  /** The guest was notified that the halves are connected: requests are taken from now on. */
  start(): void
  /** Takes no more requests. `then` is called when no grant of the guest's is in use any more: at once, if nothing is under way. */
  disconnect(then: () => void): void
  /** The guest has ended and never runs again: no grant is used any more when this returns. */
  abandon(): void
}

/** What a driver reaches of the guest's half. All that it took is given back when the halves part. */
export interface FrontEnd {
  text(name: string): string | undefined
  /** A decimal number of 32 bits. */
  number(name: string): number | undefined
  /** Pages of a ring, by the references of their grants. */
  pages(references: readonly number[]): readonly Gpa[] | undefined
  port(port: number, onEvent: () => void): LocalPort | undefined
  readonly grants: GrantAccess
  /** The guest broke the protocol: the halves part. */
  fail(why: string): void
}

export interface SplitParts {
  readonly store: Store
  readonly events: TwoLevelChannels
  /** Of the present domain. */
  readonly grants: () => GrantAccess
  readonly domain: number
}

/** Failures that are logged: a guest can fail as often as it likes. */
const MOST_FAILURES = 10

export class SplitDevice {
  readonly #driver: SplitDriver
  readonly #parts: SplitParts
  readonly #log: Log
  readonly #store: StoreConnection
  readonly #frontend: string
  readonly #backend: string
  #state: State = STATE.closed
  /** Requests are under way whose guest wants to part. */
  #isDraining = false
  /** The guest's state changed meanwhile. */
  #isStale = false
  #failures = 0
  readonly #taken: (() => void)[] = []

  constructor(driver: SplitDriver, parts: SplitParts, log: Log) {
    this.#driver = driver
    this.#parts = parts
    this.#log = log
    const { type, handle } = driver
    this.#frontend = `/local/domain/${parts.domain}/device/${type}/${handle}`
    this.#backend = `/local/domain/0/backend/${type}/${parts.domain}/${handle}`
    this.#store = parts.store.connect(0, () => this.#onFrontend())
  }

  /** A new domain: what the toolstack writes for it. */
  begin(): void {
    this.end()
    const { domain } = this.#parts
    const { frontend, backend } = this.#driver
    this.#failures = 0
    this.#folder(this.#frontend, domain, 0, {
      backend: this.#backend,
      'backend-id': 0,
      state: STATE.initialising,
      ...frontend,
    })
    this.#folder(this.#backend, 0, domain, {
      frontend: this.#frontend,
      'frontend-id': domain,
      online: 1,
      state: STATE.initialising,
      ...backend,
    })
    this.#set(STATE.initWait)
    this.#store.watch(`${this.#frontend}/state`, 'state')
  }

  /** The domain has ended. */
  end(): void {
    this.#store.reset()
    this.#driver.abandon()
    this.#giveBack()
    this.#isDraining = this.#isStale = false
    this.#state = STATE.closed
  }

  /** A half's folder belongs to its domain; the other may read it. */
  #folder(path: string, owner: number, reader: number, nodes: Nodes): void {
    this.#store.remove(path)
    this.#store.write(path, '')
    this.#store.setPermissions(path, [
      { domain: owner, read: false, write: false },
      { domain: reader, read: true, write: false },
    ])
    this.#write(path, nodes)
  }
  #write(path: string, nodes: Nodes): void {
    for (const [name, value] of Object.entries(nodes)) this.#store.write(`${path}/${name}`, String(value))
  }

  /** Values of the back end that changed: writing its state again has the guest look at them. */
  update(nodes: Nodes): void {
    if (this.#state !== STATE.connected) return
    this.#write(this.#backend, nodes)
    this.#set(STATE.connected)
  }

  #set(state: State): void {
    this.#state = state
    this.#store.write(`${this.#backend}/state`, String(state))
  }

  #onFrontend(): void {
    this.#isStale = this.#isDraining
    if (this.#isDraining) return
    switch (this.#number('state')) {
      case STATE.initialising:
        if (this.#state === STATE.closed || this.#state === STATE.closing) this.#set(STATE.initWait)
        break
      case STATE.initWait:
        break
      case STATE.initialised:
      case STATE.connected:
        if (this.#state !== STATE.connected) this.#connect()
        break
      case STATE.closing:
        this.#part(STATE.closing)
        break
      default:
        this.#part(STATE.closed)
    }
  }

  #connect(): void {
    const { events, grants } = this.#parts
    const taken = this.#taken
    const access = grants()
    const nodes = this.#driver.connect({
      text: (name) => this.#text(name),
      number: (name) => this.#number(name),
      grants: access,
      pages(references) {
        const pages: Gpa[] = []
        for (const reference of references) {
          const page = access.begin(reference, true)
          if (page === undefined) return undefined
          taken.push(() => access.end(reference, true))
          pages.push(page)
        }
        return pages
      },
      port(port, onEvent) {
        const bound = events.bindLocal(port, onEvent)
        if (bound) taken.push(() => bound.close())
        return bound
      },
      fail: (why) => this.#fail(why),
    })
    if (typeof nodes === 'string') return this.#fail(nodes)
    this.#write(this.#backend, nodes)
    this.#set(STATE.connected)
    this.#driver.start()
  }

  #fail(why: string): void {
    const { type, handle } = this.#driver
    if (this.#failures++ < MOST_FAILURES) this.#log.warn(`the guest's half of ${type} ${handle} is left alone: ${why}`)
    this.#store.write(`/local/domain/0/error/${this.#backend.slice(`/local/domain/0/`.length)}/error`, why)
    this.#part(STATE.closing)
  }

  #part(state: State): void {
    // What failed to connect has taken something, whatever its state says.
    if (this.#state === state && this.#taken.length === 0) return
    this.#isDraining = true
    this.#driver.disconnect(() => {
      if (!this.#isDraining) return
      this.#isDraining = false
      this.#giveBack()
      this.#set(state)
      if (this.#isStale) this.#onFrontend()
    })
  }

  #giveBack(): void {
    for (const end of this.#taken.splice(0)) end()
  }

  #text(name: string): string | undefined {
    const found = this.#store.read(`${this.#frontend}/${name}`)
    return typeof found === 'string' ? undefined : found.value
  }
  #number(name: string): number | undefined {
    const text = this.#text(name)
    return text !== undefined && /^\d{1,10}$/.test(text) && Number(text) < 2 ** 32 ? Number(text) : undefined
  }
}
