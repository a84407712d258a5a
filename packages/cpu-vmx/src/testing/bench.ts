/** One vCPU with a real-mode program, a minimal paging strategy, and roles that tests can override. */

import { gpa, NumericErrors, RESUME } from '@nonroot/contracts'
import type {
  GuestFrames,
  HostMemory,
  PagingOutcome,
  PagingPort,
  X86PagingStrategy,
  X86VcpuPorts,
} from '@nonroot/contracts'
import {
  createTestGuestMemory,
  createTestHostMemory,
  createTestLog,
  createTestMetrics,
  createTestClock,
} from '@nonroot/testkit'
import { createVmxMode } from '../mode.ts'
import type { VmxVcpu } from '../vcpu.ts'

const RAM = 1 << 20
/** Frames for the processor's code cache, its tables, and the guest. */
const HOST_FRAMES = 4096

/** EPT of 4 KiB leaves, filled on demand. */
function leastPaging(host: HostMemory, frames: () => GuestFrames, taken: number[]): X86PagingStrategy {
  const root = host.allocateFrame()!
  taken.push(root)
  const next = (at: number): number => {
    const entry = host.view.getUint32(at, true)
    if (entry !== 0) return entry & ~0xfff
    const table = host.allocateFrame()!
    taken.push(table)
    host.view.setUint32(at, table | 7, true)
    return table
  }
  const mmio = { next: 'mmio' as const, address: gpa(0) }
  const leaf = (address: number): number => {
    let table: number = root
    for (let level = 4; level > 1; level--)
      table = next(table + (Math.floor(address / 4096 / 512 ** (level - 1)) % 512) * 8)
    return table + (Math.floor(address / 4096) % 512) * 8
  }
  let attached: PagingPort | undefined
  return {
    attach(port) {
      attached = port
      port.setIntercepts({ pageFault: false, rootWrite: false, invalidate: false, rootRead: false })
      port.setSecondStageRoot(root, true)
    },
    onSecondStageFault(_port, address, access): PagingOutcome {
      const frame = frames().translate(address, access & 2 ? 'write' : 'read')
      if (frame === 'wait') return { next: 'wait', address }
      if (frame === undefined) {
        mmio.address = address
        return mmio
      }
      host.view.setUint32(leaf(address), (frame & ~0xfff) | 0x37, true)
      return RESUME
    },
    onPageFault: () => RESUME,
    onRootWrite: () => RESUME,
    onInvalidate: () => RESUME,
    onModeChange: () => RESUME,
    onTableUpdate: () => RESUME,
    onMemoryChange(ranges) {
      for (const { address, length } of ranges) {
        for (let at: number = address; at < address + length; at += 4096) host.view.setUint32(leaf(at), 0, true)
      }
      attached!.flushGuestPhysical(ranges)
    },
    dispose: () => {},
    save: () => ({ type: 'paging.least', version: 1, data: {} }),
    restore: () => {},
  }
}

export type PortsOverride = { [R in 'io' | 'abi' | 'interrupts']?: Partial<X86VcpuPorts[R]> } & {
  numericErrors?: NumericErrors
}

export function createBench(program: readonly number[], override: PortsOverride = {}, index = 0) {
  const host = createTestHostMemory(HOST_FRAMES)
  const written: [port: number, size: number, value: number][] = []
  const pending: number[] = []
  const signals = { bits: 0, startup: 0 }
  const metrics = createTestMetrics()
  const taken: number[] = []
  const paging = leastPaging(host, () => guestMemory, taken)
  const guestMemory = createTestGuestMemory({ hostMemory: host, ram: RAM, paging })
  const io = {
    readPort: (port: number) => port & 0xff,
    writePort: (port: number, size: number, value: number) => (written.push([port, size, value]), true),
    readMmio: (address: number) => address & 0xff,
    writeMmio: (address: number, size: number, value: number) => (written.push([address, size, value]), true),
    readMmio64: () => 0n,
    writeMmio64: () => true,
    ...override.io,
  }
  const abi = {
    cpuid: () => {},
    readMsr: () => undefined,
    writeMsr: () => undefined,
    hypercall: () => 'unknown',
    ...override.abi,
  }
  const interrupts = {
    hasPending: () => pending.length > 0,
    acknowledge: () => pending.shift() ?? -1,
    signals: () => signals.bits,
    takeSignal: (_: number, signal: number) => ((signals.bits &= ~signal), signals.startup),
    readTaskPriority: () => 0,
    writeTaskPriority: () => {},
    readMsr: () => undefined,
    writeMsr: () => undefined,
    ...override.interrupts,
  }
  const ports = {
    paging,
    abi,
    interrupts,
    io,
    capability: (of: unknown) => (of === NumericErrors ? override.numericErrors : undefined),
    clock: createTestClock(),
    guestMemory,
    guestFrames: guestMemory,
    entropy: { fill: (into: Uint8Array) => into.fill(0x5a) },
    metrics,
    log: createTestLog(),
  } as unknown as X86VcpuPorts
  const mode = createVmxMode({ codeCacheMiB: 4 }, { hostMemory: host, metrics, log: createTestLog() })
  const vcpu = mode.createVcpu(index, ports) as VmxVcpu
  guestMemory.writeBytes(0x1000, Uint8Array.from(program))
  const start = (): void =>
    vcpu.writeState({
      rip: 0x1000n,
      rsp: 0x8000n,
      cs: { selector: 0, base: 0n, limit: 0xffff, attributes: 0x9b },
      activity: 'active',
    })
  if (index === 0) start()
  /** Real-mode vector: IP in segment 0. */
  const setVector = (vector: number, ip: number): void => void guestMemory.writeU32(vector * 4, ip)
  return {
    vcpu,
    host,
    guestMemory,
    written,
    pending,
    signals,
    metrics,
    ports,
    start,
    setVector,
    tableFrames: () => taken.length,
  }
}
