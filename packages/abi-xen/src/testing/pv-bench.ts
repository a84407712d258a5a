/** A paravirtual domain for tests of its calls: tables that give the answers a test sets, memory at linear addresses from 0. Not part of the package. */

import type {
  EventChannels,
  GuestAbiVcpu,
  PvVcpu,
  TableCalls,
  TableStatus,
  VmContext,
  X86GuestAbiPorts,
  XenPlatform,
} from '@nonroot/contracts'
import { createTestClock, createTestHostMemory, createTestLog, createTestMetrics } from '@nonroot/testkit'
import { XenAbi } from '../xen.ts'

const BYTES = 1 << 17
export const SELF = 0x7ff0

export function pvBench({ vcpuCount = 2 } = {}) {
  const hostMemory = createTestHostMemory(64)
  const pages = Array.from({ length: 8 }, () => hostMemory.allocateFrame()!)
  const memory = new DataView(new ArrayBuffer(BYTES))
  const bytes = new Uint8Array(memory.buffer)
  /** Table calls in order: name and arguments. */
  const asked: (readonly [name: string, ...args: unknown[]])[] = []
  /** Answers by name, once each; then ok. */
  const answers: Partial<Record<keyof TableCalls, TableStatus[]>> = {}
  /** Frames held less frames released. */
  let held = 0
  /** What the tables still count at the domain's end. */
  let left = 0
  const says =
    (name: keyof TableCalls) =>
    (...args: unknown[]): TableStatus => {
      asked.push([name, ...args])
      const status = answers[name]?.shift() ?? 'ok'
      if (name === 'hold' && status === 'ok') held++
      return status
    }
  const names = [
    'writeEntry',
    'writeLinear',
    'setMachineToPhysical',
    'pin',
    'unpin',
    'setRoot',
    'hold',
    'giveBack',
    'mapGrant',
    'unmapGrant',
    'steal',
  ] as const
  const more = ['setDescriptorFrames', 'writeDescriptor', 'setLocalDescriptors', 'clearFrame', 'copyFrame'] as const
  let frames = 10
  const tables = {
    ...Object.fromEntries([...names, ...more].map((name) => [name, says(name)])),
    machineFrames: 64,
    machineToPhysical: { start: 0n, end: 512n, firstFrame: 0 },
    frameCount: 10,
    mostFrames: 10,
    populate: () => new Uint32Array(4),
    addressOf: () => 0,
    hostAddress: (machine: number) => pages[Math.floor(machine / 4096) % 8],
    shareFrame: () => 0,
    settle: () => left,
    release: () => void held--,
    takeFrame: () => (frames < 14 ? frames++ : undefined),
    flush: (...args: unknown[]) => void asked.push(['flush', ...args]),
  } as unknown as TableCalls
  const virtuals: [vcpu: number, virtual: number][] = []
  const woken: number[] = []
  const written: string[] = []
  const ended: string[] = []
  const clock = createTestClock()
  const power = {
    powerOff: () => void ended.push('off'),
    reset: () => void ended.push('reset'),
    crashed: () => void ended.push('crashed'),
  }
  const events = {
    ...{ attach: () => {}, markAll: () => {} },
    raiseVirtual: (vcpu: number, virtual: number) => void virtuals.push([vcpu, virtual]),
    wake: (vcpu: number) => void woken.push(vcpu),
    isOpen: (port: number) => port === 1,
    isPending: () => false,
  } as unknown as EventChannels
  const show = (text: Uint8Array): void => void written.push(new TextDecoder().decode(text))
  const ring = { port: 1, connect: () => {} }
  const platform: XenPlatform = {
    events,
    console: ring,
    store: ring,
    begin: () => {},
    end: () => {},
    connectGrants: () => {},
    write: show,
    read: () => 0,
  }
  const metrics = createTestMetrics()
  const abi = new XenAbi({
    ...{ hostMemory, metrics, clock, vcpuCount, log: createTestLog() },
    guestMemory: {},
  } as unknown as VmContext)
  abi.attach({
    ...{ clock, power, vcpuCount, paging: { tableCalls: tables }, capability: () => platform },
  } as unknown as X86GuestAbiPorts)
  const reaches = (address: bigint, length: number): boolean =>
    address >= 0n && address + BigInt(length) <= BigInt(BYTES)
  let [repeats, returned] = [false, 0]
  /** What the vCPU was asked, in order; and what it refuses. */
  const pvAsked: (readonly [name: string, ...args: unknown[]])[] = []
  const refused = new Set<string>()
  const asks =
    (name: string) =>
    (...args: unknown[]): boolean => {
      pvAsked.push([name, ...args])
      return !refused.has(name)
    }
  const asksOf = [
    ...['clearTraps', 'setTrap', 'setCallback', 'setKernelStack', 'setTaskSwitched', 'setSegmentBase', 'loadUserGs'],
    ...[
      'setDebugRegister',
      'setIoPrivilege',
      'setIoBitmap',
      'descriptorsChanged',
      'setUp',
      'sendNmi',
      'sleep',
      'yield',
    ],
  ]
  const nothing = (): void => {}
  const pv = {
    ...Object.fromEntries(asksOf.map((name) => [name, asks(name)])),
    ...{ initialise: nothing, setInfo: nothing, isUp: false, inKernel: true },
    debugRegister: () => 0n,
    repeat: () => void (repeats = true),
    returnFromTrap: () => void returned++,
    copyIn(address, into) {
      if (!reaches(address, into.length)) return false
      into.set(bytes.subarray(Number(address), Number(address) + into.length))
      return true
    },
    copyOut(address, from) {
      if (!reaches(address, from.length)) return false
      bytes.set(from, Number(address))
      return true
    },
  } as Partial<PvVcpu> as PvVcpu
  const registers = { rax: 0n, rbx: 0n, rcx: 0n, rdx: 0n, rsi: 0n, rdi: 0n, r8: 0n, r9: 0n, r10: 0n }
  const vcpus: GuestAbiVcpu[] = Array.from({ length: vcpuCount }, (_, index) => ({
    ...{ index, registers, cpl: 3, longMode: true, translate: () => undefined, pv },
  }))
  for (const vcpu of vcpus) abi.addVcpu(vcpu)
  return {
    ...{ abi, memory, bytes, asked, answers, registers, hostMemory, clock, pvAsked, woken, written, ended },
    virtual: virtuals,
    refuses: (name: keyof PvVcpu) => void refused.add(name),
    /** Content of a frame, by its number. */
    page: (frame: number) => hostMemory.bytes.subarray(pages[frame % 8]!, pages[frame % 8]! + 4096),
    held: () => held,
    leaveBehind: (count: number) => void (left = count),
    leaks: () => metrics.counter('leaks', '').value,
    returned: () => returned,
    /** One piece of a call: its result, or `again`. */
    call(number: number, ...args: (number | bigint)[]): number | 'again' {
      const [rdi, rsi, rdx, r10] = [0, 1, 2, 3].map((n) => BigInt(args[n] ?? 0)) as [bigint, bigint, bigint, bigint]
      Object.assign(registers, { rax: BigInt(number), rdi, rsi, rdx, r10 })
      repeats = false
      abi.hypercall(vcpus[0]!)
      return repeats ? 'again' : Number(BigInt.asIntN(64, registers.rax))
    },
  }
}
