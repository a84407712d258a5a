/** A stack of scripted parts for tests of the run loop: a vCPU whose guest is a function. Not in the published package. */

import { createKickAddress, EXACT_BUDGET, KickInbox, noOptions, RESUME } from '@nonroot/contracts'
import type {
  AnyStrategyDefinition,
  CpuMode,
  Device,
  DeviceDefinition,
  GuestAbi,
  InterruptController,
  InterruptSink,
  Iommu,
  IoModel,
  IoModelContext,
  ReclaimPolicy,
  Snapshot,
  Vcpu,
  VcpuExit,
  VcpuPorts,
  VcpuStatus,
} from '@nonroot/contracts'
import type { DeviceLayer, Stack, StrategyLayer } from '../composition/stack.ts'

/** The guest's next step: it retires one instruction and may return an exit. `take` takes a pending interrupt. */
export type Guest = (cpu: ScriptedCpu) => VcpuExit | undefined

export interface ScriptedCpu {
  readonly ports: VcpuPorts
  readonly index: number
  /** Free for the script. */
  step: number
  interruptsEnabled: boolean
  rip: bigint
  /** A pending vector, taken; or -1. */
  take(): number
  /** Instructions by which it exceeds budgets that need not be kept exactly. */
  excess: number
  /** The answer of a deferred access. */
  readonly deferred: { data: number }
}

export const HALT: VcpuExit = { reason: 'halt' }
export const SHUTDOWN: VcpuExit = { reason: 'shutdown' }
const BUDGET: VcpuExit = { reason: 'budget' }
const nothing: Snapshot = { type: 'test', version: 1, data: {} }

class ScriptedVcpu implements Vcpu, ScriptedCpu {
  readonly index: number
  readonly ports: VcpuPorts
  readonly guest: Guest
  instructionsRetired = 0
  step = 0
  interruptsEnabled = true
  excess = 0
  rip = 0n
  halted = false
  readonly kicks = new KickInbox(createKickAddress())
  readonly kickAddress = this.kicks.address
  readonly deferred = { data: 0 }
  readonly portExit = { reason: 'portIo' as const, write: false, port: 0, size: 1 as const, data: 0 }

  constructor(index: number, ports: VcpuPorts, guest: Guest) {
    this.index = index
    this.ports = ports
    this.guest = guest
  }
  get interruptWindow(): boolean {
    return this.interruptsEnabled
  }
  take(): number {
    return this.interruptsEnabled && this.ports.interrupts.hasPending(this.index)
      ? this.ports.interrupts.acknowledge(this.index)
      : -1
  }
  run(budget: number): VcpuExit {
    if (this.kicks.take()) return BUDGET
    if (this.halted && !(this.interruptsEnabled && this.ports.interrupts.hasPending(this.index))) return HALT
    this.halted = false
    for (let left = budget > EXACT_BUDGET ? budget + this.excess : budget; left > 0 && !this.kicks.take(); left--) {
      this.instructionsRetired++
      const exit = this.guest(this)
      if (exit?.reason === 'halt') this.halted = true
      // The instruction has no effect yet, and is executed again.
      if (exit?.reason === 'memory') this.instructionsRetired--
      if (exit) return exit
    }
    return BUDGET
  }
  kick(): void {
    this.kicks.request()
  }
  readState(): VcpuStatus {
    return { rip: this.rip, activity: this.halted ? 'halted' : 'active' }
  }
  writeState({ rip }: Partial<VcpuStatus>): void {
    if (rip !== undefined) this.rip = rip
  }
  reset(): void {
    this.halted = false
    this.rip = 0n
  }
  completeHypercall(): void {}
  translate(): undefined {}
  dispose(): void {}
  save = () => nothing
  restore(): void {}
}

/** One line, vector 32. */
class OneLine implements InterruptController {
  readonly lines = 24
  readonly messages = { send: () => {} }
  pending = false
  sink: InterruptSink | undefined
  attach(sink: InterruptSink): void {
    this.sink = sink
  }
  line(gsi = 4) {
    if (gsi >= this.lines) return undefined
    const raise = (): void => {
      this.pending = true
      this.sink?.wake(0)
    }
    return { raise, lower: () => {}, pulse: raise }
  }
  hasPending(vcpu: number): boolean {
    return vcpu === 0 && this.pending
  }
  acknowledge(): number {
    const vector = this.pending ? 32 : -1
    this.pending = false
    return vector
  }
  reset(): void {
    this.pending = false
  }
  save = () => nothing
  restore(): void {}
}

const abi = (onSteal: ScriptedStackOptions['onSteal']): GuestAbi => ({
  attach() {},
  accountSteal: (_vcpu, ns) => onSteal?.(ns),
  reset() {},
  save: () => nothing,
  restore() {},
})

/**
 * Ports: 0x10 console byte, 0x20 power off, 0x21 exit with the value, 0x22 reset, 0x23 timer in value microseconds on line 4,
 * 0x24 not ready the first two times, 0x25 throws.
 */
function testModel(context: IoModelContext, iommu: Iommu | undefined): IoModel {
  const interruptController = new OneLine()
  const byte = new Uint8Array(1)
  let tries = 0
  const write = (port: number, handle: (value: number) => boolean | void): void =>
    void context.portIo(port, 1, { read: () => 0, write: (_offset, _size, value) => handle(value) })
  write(0x10, (value) => {
    byte[0] = value
    context.console.write(byte)
  })
  write(0x20, () => context.power.powerOff())
  write(0x21, (value) => context.power.exit(value))
  write(0x22, () => context.power.reset())
  write(0x23, (value) => {
    context.clock.setTimer(context.clock.nowNs() + value * 1000, () => interruptController.line()!.raise())
  })
  context.portIo(0x24, 1, { read: () => (++tries % 3 ? -1 : 0x5a), write: () => {} })
  context.portIo(0x25, 1, {
    read: () => {
      throw new Error('the device broke')
    },
    write: () => {},
  })
  context.console.onInput(() => interruptController.line()!.raise())
  return { interruptController, ...(iommu ? { iommu } : {}) }
}

export interface ScriptedStackOptions {
  readonly guest: Guest
  readonly machine?: Partial<Stack['config']['machine']>
  readonly devices?: Readonly<Record<string, DeviceDefinition['create']>>
  /** Of the I/O model. */
  readonly iommu?: Iommu
  readonly reclaim?: readonly ReclaimPolicy[]
  /** Of the host. Default 16 MiB. */
  readonly hostBytes?: number
  /** Called with each stretch of steal time. */
  readonly onSteal?: (ns: number) => void
  /** Called at each boot. */
  readonly onBoot?: () => void
}

const MIB = 2 ** 20

export function scriptedStack({
  guest,
  machine,
  devices = {},
  iommu,
  reclaim = [],
  hostBytes = 16 * MIB,
  onSteal,
  onBoot,
}: ScriptedStackOptions): Stack {
  const location = { file: 'test.yaml' }
  const common = { location, package: { name: 'test', version: '1.0.0', folder: '/' }, options: {}, folder: '/' }
  const layer = (role: string, thing: string, create: unknown): StrategyLayer<never> =>
    ({ ...common, role, thing, definition: { role, name: role, summary: '', options: noOptions, create } }) as never
  const cpu: CpuMode = { createVcpu: (index, ports) => new ScriptedVcpu(index, ports, guest) }
  const policies = reclaim.map((policy, index) => layer('reclaim', `stack.reclaim[${index}]`, () => policy))
  const layers = {
    cpu: layer('cpu', 'stack.cpu', () => cpu),
    paging: layer('paging', 'stack.paging', () => ({ onMemoryChange: () => RESUME, dispose() {} })),
    abi: layer('abi', 'stack.abi', () => abi(onSteal)),
    io: [layer('io', 'stack.io[0]', (_options: unknown, context: IoModelContext) => testModel(context, iommu))],
    boot: {
      ...layer('boot', 'boot.test', () => ({
        load: () => {
          onBoot?.()
          return { registers: { rip: 0x1000n }, placed: [{ what: 'kernel', start: 0x1000, length: 4 }] }
        },
      })),
      image: {},
    },
  }
  return {
    file: 'test.yaml',
    config: {
      apiVersion: 'nonroot/v1',
      stack: {} as never,
      machine: { memory: 2 * MIB, vcpus: 1, clock: 'wall', onReset: 'restart', ...machine },
      host: { memory: hostBytes, devices: [] },
      devices: [],
    },
    ...(layers as unknown as Pick<Stack, 'cpu' | 'paging' | 'abi' | 'io' | 'boot'>),
    reclaim: policies as unknown as Stack['reclaim'],
    scheduler: undefined,
    devices: Object.entries(devices).map(([name, create]): DeviceLayer => ({
      ...common,
      thing: `devices.${name}`,
      name,
      definition: { kind: name, summary: '', options: noOptions as never, create: create as () => Device },
    })),
    host: { io: [], devices: [] },
    layers: [
      layers.cpu,
      layers.paging,
      layers.abi,
      ...layers.io,
      layers.boot,
      ...policies,
    ] as unknown as readonly (StrategyLayer & AnyStrategyDefinition)[],
  }
}
