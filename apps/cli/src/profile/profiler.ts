/**
 * A sampling profile of the guest. The run loop ends a slice about every millisecond; where the guest is then is a sample, weighted by how
 * long the slice took. A slice that ended because the guest slept or did something says nothing of where it was before: those stand
 * by themselves. Runs on the VM's thread.
 */
import type { GuestMemory, Vcpu, VcpuState } from '@nonroot/contracts'
import type { Tracer } from '@nonroot/hypervisor'
import type { Symbols } from './symbols.ts'

/** A stack, outermost first, joined by `;`, and nanoseconds. */
export type FoldedStack = readonly [stack: string, ns: number]

interface Traced {
  readonly vcpus: readonly Vcpu[]
  readonly guestMemory: GuestMemory
}

const LSTAR = 0xc000_0082
const KERNEL_GS_BASE = 0xc000_0102
const KERNEL_SPACE = 0xffff_8000_0000_0000n
const TASK_COMM = 16
/** A task_struct is larger than this nowhere; its `comm` lies in it somewhere. */
const TASK_BYTES = 16384
const NS_PER_MS = 1e6

export class Profiler implements Tracer {
  readonly #weights = new Map<string, number>()
  #traced: Traced | undefined
  #symbols: Symbols | undefined
  #commOffset: number | undefined

  attach(traced: Traced): void {
    this.#traced = traced
  }
  set symbols(symbols: Symbols | undefined) {
    this.#symbols = symbols
  }

  slice(track: string, name: string, startMs: number, endMs: number): void {
    const ns = (endMs - startMs) * NS_PER_MS
    if (name !== 'budget') return this.#add(name === 'idle' ? '[idle]' : `[until ${name}]`, ns)
    const vcpu = this.#traced?.vcpus[Number(track.slice('vcpu'.length))]
    if (vcpu) this.#add(this.#stack(vcpu), ns)
  }

  stacks(): FoldedStack[] {
    return [...this.#weights].map(([stack, ns]) => [stack, Math.round(ns)] as const).toSorted(([, a], [, b]) => b - a)
  }

  #add(stack: string, ns: number): void {
    this.#weights.set(stack, (this.#weights.get(stack) ?? 0) + ns)
  }

  #stack(vcpu: Vcpu): string {
    const state = vcpu.readState() as VcpuState
    const user = (state.cs.selector & 3) === 3
    const address = state.rip + (user ? 0n : state.cs.base)
    const name = this.#symbols?.at(address - (user ? 0n : this.#slide(state)))
    const leaf = name ?? (user ? `0x${(address & ~0xfffn).toString(16)}` : `0x${address.toString(16)}`)
    const process = this.#process(vcpu, state, user)
    return [...(process === undefined ? [] : [process]), user ? '[user]' : '[kernel]', leaf].join(';')
  }

  /** How far a kernel was moved from where it was linked (KASLR): by where its system call entry is. */
  #slide(state: VcpuState): bigint {
    const linked = this.#symbols?.addressOf('entry_SYSCALL_64')
    const actual = state.msrs.get(LSTAR)
    return linked === undefined || !actual || actual < KERNEL_SPACE ? 0n : actual - linked
  }

  /**
   * The name of Linux's current task: its per-CPU pointer is found by its symbol, where the name lies in the task by looking for
   * `swapper` in the first one.
   */
  #process(vcpu: Vcpu, state: VcpuState, user: boolean): string | undefined {
    const symbols = this.#symbols
    // Since Linux 6.2 the pointer is the first field of pcpu_hot.
    const pointer = symbols?.addressOf('current_task') ?? symbols?.addressOf('pcpu_hot')
    const first = symbols?.addressOf('init_task')
    const area = user ? state.msrs.get(KERNEL_GS_BASE) : state.gs.base
    if (pointer === undefined || first === undefined || area === undefined || area < KERNEL_SPACE) return undefined
    this.#commOffset ??= this.#findComm(vcpu, first + this.#slide(state))
    if (this.#commOffset === undefined) return undefined
    const task = this.#read(vcpu, area + pointer, 8)
    if (!task) return undefined
    const at = new DataView(task.buffer).getBigUint64(0, true)
    const comm = at >= KERNEL_SPACE ? this.#read(vcpu, at + BigInt(this.#commOffset), TASK_COMM) : undefined
    return comm && textOf(comm)
  }

  #findComm(vcpu: Vcpu, task: bigint): number | undefined {
    for (let offset = 0; offset + 16 <= TASK_BYTES; offset += 8) {
      const bytes = this.#read(vcpu, task + BigInt(offset), 8)
      if (bytes && textOf(bytes) === 'swapper') return offset
      if (bytes && textOf(bytes) === 'swapper/') return offset
    }
    return undefined
  }

  /** Undefined where it is not mapped. */
  #read(vcpu: Vcpu, address: bigint, length: number): Uint8Array | undefined {
    const into = new Uint8Array(length)
    for (let done = 0; done < length;) {
      const part = Math.min(length - done, 0x1000 - Number((address + BigInt(done)) & 0xfffn))
      const physical = vcpu.translate(address + BigInt(done))
      if (physical === undefined || !this.#traced!.guestMemory.readBytes(physical, into.subarray(done, done + part)))
        return undefined
      done += part
    }
    return into
  }
}

/** Up to the zero; what separates stacks and their frames is replaced. */
function textOf(bytes: Uint8Array): string {
  const end = bytes.indexOf(0)
  return new TextDecoder('latin1').decode(end < 0 ? bytes : bytes.subarray(0, end)).replaceAll(/[;\s]/g, '_')
}
