/** A processor of the host: the loop that runs the vCPUs of all VMs of this thread, as the scheduler chooses them. Independent of devices and CPU modes. @hot */

import type { Counter, KickAddress, Metrics, Schedulable, Scheduler, WakeReason } from '@nonroot/contracts'
import type { Pace } from './pace.ts'

/** Longest time between turns of the event loop: the maximum delay of input and completed requests. */
export const TURN_NS = 1e6

/** A VM as the thread sees it. */
export interface ScheduledVm {
  readonly vcpus: readonly (Schedulable & { readonly kickAddress: KickAddress })[]
  /** Before each choice: expired timers and requests to the VM. */
  prepare(): void
  /** Runs the vCPU for about so long. */
  slice(vcpu: number, sliceNs: number): void
  /** Nanoseconds until `prepare` has something to do by itself. */
  readonly untilDueNs: number
  /** The vCPU was ready while another one ran. */
  accountSteal(vcpu: number, ns: number): void
}

const now = (): number => performance.now() * 1e6

/** A vCPU, and what the thread keeps of it. */
class Seat {
  readonly vm: ScheduledVm
  readonly who: Schedulable
  /** When it became ready, until it runs. NaN: it sleeps. */
  readySinceNs = NaN
  hasWoken = false
  readonly #word: Int32Array<SharedArrayBuffer> | undefined
  #isListening = false

  constructor(vm: ScheduledVm, who: Schedulable, { buffer, offset }: KickAddress) {
    this.vm = vm
    this.who = who
    this.#word = buffer instanceof SharedArrayBuffer ? new Int32Array(buffer, offset, 1) : undefined
  }

  /** Calls once when another thread kicks the vCPU while it sleeps. */
  listen(kicked: () => void): void {
    // Hosts without it look at their event loop's next turn.
    if (this.#isListening || !this.#word || !Atomics.waitAsync) return
    const { async, value } = Atomics.waitAsync(this.#word, 0, 0)
    this.#isListening = async
    if (!async) return kicked()
    void value.then(() => {
      this.#isListening = false
      kicked()
    })
  }
  close(): void {
    if (this.#word) Atomics.notify(this.#word, 0)
  }
}

export class HostThread {
  readonly pace: Pace
  readonly #processor: number
  readonly #scheduler: Scheduler
  readonly #vms = new Set<ScheduledVm>()
  readonly #seats = new Map<Schedulable, Seat>()
  #isRunning = false
  #last: Schedulable | undefined
  readonly #switches: Counter
  readonly #wakes: Counter
  readonly #wakeNs: Counter

  constructor(processor: number, scheduler: Scheduler, pace: Pace, metrics: Metrics) {
    this.#processor = processor
    this.#scheduler = scheduler
    this.pace = pace
    this.#switches = metrics.counter('switches', 'changes from one vCPU to another')
    this.#wakes = metrics.counter('wakes', 'vCPUs that became ready after sleeping')
    this.#wakeNs = metrics.counter('wakeNs', 'time from becoming ready to running, of these', 'ns')
  }

  /** Its vCPUs are asleep until `wake`. */
  add(vm: ScheduledVm): void {
    this.#vms.add(vm)
    for (const who of vm.vcpus) {
      this.#seats.set(who, new Seat(vm, who, who.kickAddress))
      this.#scheduler.add(who)
    }
    if (!this.#isRunning) void this.#run()
    this.pace.wake()
  }

  remove(vm: ScheduledVm): void {
    if (!this.#vms.delete(vm)) return
    for (const who of vm.vcpus) {
      this.#seats.get(who)!.close()
      this.#seats.delete(who)
      this.#scheduler.remove(who)
    }
    this.pace.wake()
  }

  wake(who: Schedulable, reason: WakeReason): void {
    const seat = this.#seats.get(who)
    if (!seat) return
    const at = now()
    if (Number.isNaN(seat.readySinceNs)) {
      seat.readySinceNs = at
      seat.hasWoken = true
    }
    this.#scheduler.wake(who, reason, at)
    this.pace.wake()
  }

  /** `kicked`: another thread has kicked it. */
  sleep(who: Schedulable, kicked?: () => void): void {
    const seat = this.#seats.get(who)
    if (!seat) return
    seat.readySinceNs = NaN
    seat.hasWoken = false
    this.#scheduler.sleep(who, now())
    if (kicked) seat.listen(kicked)
  }

  async #run(): Promise<void> {
    this.#isRunning = true
    // The caller of `add` continues before guest code runs.
    await this.pace.turn()
    while (this.#vms.size > 0) {
      const idleNs = this.#burst()
      if (this.#vms.size === 0) break
      if (idleNs > 0) await this.pace.sleep(idleNs)
      else await this.pace.turn()
    }
    this.#isRunning = false
  }

  /** Slices until the event loop's next turn. Returns how long there is nothing to do. */
  #burst(): number {
    const stop = now() + TURN_NS
    let at: number
    do {
      for (const vm of this.#vms) vm.prepare()
      at = now()
      const slice = this.#scheduler.next(this.#processor, at)
      if (!slice) return this.#idleNs(at)
      at = this.#slice(this.#seats.get(slice.who)!, Math.min(slice.sliceNs, TURN_NS), at)
    } while (at < stop)
    return 0
  }

  #slice(seat: Seat, sliceNs: number, startNs: number): number {
    const { vm, who } = seat
    if (this.#last !== who) this.#switches.value++
    this.#last = who
    if (seat.hasWoken) {
      seat.hasWoken = false
      this.#wakes.value++
      this.#wakeNs.value += Math.floor(startNs - seat.readySinceNs)
    }
    // Timers of other VMs are kept, too.
    let limitNs = sliceNs
    if (this.#vms.size > 1)
      for (const other of this.#vms) if (other !== vm) limitNs = Math.min(limitNs, other.untilDueNs)
    vm.slice(who.vcpu, limitNs)
    const endNs = now()
    const tookNs = endNs - startNs
    this.#scheduler.ran(this.#processor, who, tookNs, endNs)
    if (this.#seats.size > 1) this.#accountSteal(seat, tookNs)
    return endNs
  }

  #accountSteal(ran: Seat, tookNs: number): void {
    for (const seat of this.#seats.values())
      if (seat !== ran && !Number.isNaN(seat.readySinceNs)) seat.vm.accountSteal(seat.who.vcpu, tookNs)
  }

  #idleNs(at: number): number {
    let idleNs = (this.#scheduler.retryAtNs?.(this.#processor) ?? Infinity) - at
    for (const vm of this.#vms) idleNs = Math.min(idleNs, vm.untilDueNs)
    return idleNs
  }
}
