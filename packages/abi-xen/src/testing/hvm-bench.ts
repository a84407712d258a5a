/** A guest with memory of its own for tests of its calls: linear addresses are physical ones. Not part of the package. */

import type { CpuidResult, GuestAbiVcpu, GuestFrames, PowerControl, VmContext } from '@nonroot/contracts'
import {
  createTestClock,
  createTestGuestMemory,
  createTestHostMemory,
  createTestLog,
  createTestMetrics,
} from '@nonroot/testkit'
import { gpa, type EventChannels, type XenPlatform } from '@nonroot/contracts'
import { XenHvmAbi } from '../hvm/abi.ts'

export const CONSOLE_PAGE = 14
export const STORE_PAGE = 15
const RAM_PAGES = 16

export function hvmBench({ vcpuCount = 2 } = {}) {
  const hostMemory = createTestHostMemory(256)
  const guestMemory = createTestGuestMemory({ hostMemory, ram: RAM_PAGES * 4096 })
  const clock = createTestClock()
  const metrics = createTestMetrics()
  const context: VmContext = {
    ...{ hostMemory, guestMemory, clock, metrics, vcpuCount },
    guestFrames: guestMemory as unknown as GuestFrames,
    log: createTestLog(),
  }
  const vectors: [vcpu: number, vector: number][] = []
  const callbacks: number[] = []
  const connected: number[] = []
  const ended: string[] = []
  const events = { attach: () => {}, markAll: () => {}, raiseVirtual: () => {} } as unknown as EventChannels
  const ring = (page: number, port: number) => ({
    port,
    page: gpa(page * 4096),
    connect: (at: number) => void connected.push(at),
  })
  const platform: XenPlatform = {
    events,
    console: ring(CONSOLE_PAGE, 1),
    store: ring(STORE_PAGE, 2),
    begin: () => {},
    end: () => {},
    connectGrants: () => {},
    setUpcallVector: (vcpu, vector) => void vectors.push([vcpu, vector]),
    setCallbackVector: (vector) => void callbacks.push(vector),
    setCallbackLine: (gsi) => gsi < 16 && callbacks.push(-gsi) > 0,
    setCallbackPin: (requesterId, pin) => {
      if (requesterId !== 0x08) return false
      callbacks.push(pin)
      return true
    },
    write: () => {},
    read: () => 0,
  }
  const power = {
    powerOff: () => void ended.push('off'),
    reset: () => void ended.push('reset'),
  } as unknown as PowerControl
  const abi = new XenHvmAbi(context)
  abi.attach({
    ...{ guestMemory, clock, vcpuCount, power },
    interrupts: {} as never,
    paging: {} as never,
    capability: () => platform as never,
  })
  const registersOf = (number: number, args: readonly (number | bigint)[]): GuestAbiVcpu['registers'] => {
    const [rdi, rsi, rdx, r10, r8] = [0, 1, 2, 3, 4].map((n) => BigInt(args[n] ?? 0)) as [
      bigint,
      bigint,
      bigint,
      bigint,
      bigint,
    ]
    return { rax: BigInt(number), rbx: 0n, rcx: 0n, rdx, rsi, rdi, r8, r9: 0n, r10 }
  }
  const translate = (address: bigint): number | undefined =>
    address < BigInt(RAM_PAGES * 4096) ? Number(address) : undefined
  const callWith = (
    registers: GuestAbiVcpu['registers'],
    { cpl = 0, longMode = true, index = 0 } = {},
  ): ReturnType<XenHvmAbi['hypercall']> => abi.hypercall({ index, registers, cpl, longMode, translate })
  return {
    ...{
      abi,
      guestMemory,
      hostMemory,
      frames: context.guestFrames,
      clock,
      metrics,
      vectors,
      callbacks,
      connected,
      ended,
      callWith,
      registersOf,
    },
    /** Result of a call, made again until it is done. */
    call(number: number, ...args: (number | bigint)[]): number {
      const registers = registersOf(number, args)
      while (callWith(registers) === 'again') registers.rax = BigInt(number)
      return Number(BigInt.asIntN(64, registers.rax))
    },
    /** A structure at a guest address. */
    put(address: number, write: (view: DataView) => void, bytes = 64): number {
      const view = new DataView(new ArrayBuffer(bytes))
      write(view)
      guestMemory.writeBytes(address, new Uint8Array(view.buffer))
      return address
    },
    cpuid(leaf: number, vcpu = 0): CpuidResult {
      const result = { eax: 0, ebx: 0, ecx: 0, edx: 0 }
      abi.cpuid(vcpu, leaf, 0, result)
      return result
    },
  }
}
