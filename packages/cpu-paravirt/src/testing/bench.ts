/** A paravirtual vCPU on tables that a test wrote: kernel and user code from page 1 and page 5, handlers that stop. Not part of the package. */

import { hpa } from '@nonroot/contracts'
import type { GuestAbiVcpu, TableCalls, VcpuState, X86VcpuPorts } from '@nonroot/contracts'
import { createTestClock, createTestHostMemory, createTestLog, createTestMetrics } from '@nonroot/testkit'
import { ParavirtVcpu } from '../vcpu.ts'

export const KERNEL_CODE = 0x1000
export const KERNEL_STACK = 0x4000n
export const USER_CODE = 0x5000
export const USER_STACK = 0x7000n
const HANDLERS = 0x2000
const HANDLER_BYTES = 16
const GDT_PAGE = 8
const PAGES = 9
const [P, RW, US] = [1, 2, 4]
export const IRET = 23
/** A call at which the vCPU stops. */
const STOP = 100
/** mov eax, number; syscall */
export const call = (number: number): number[] => [0xb8, number, 0, 0, 0, 0x0f, 0x05]
export const stop = call(STOP)
export const handlerOf = (slot: number): bigint => BigInt(HANDLERS + slot * HANDLER_BYTES)
/** Slots of handlers that are no exceptions'. */
export const SLOT = { syscall: 40, event: 41 } as const

export function pvBench() {
  const host = createTestHostMemory(4096)
  const frame = (): number => host.allocateFrame()!
  const link = (table: number, index: number, to: number, flags = P | RW | US): void =>
    host.view.setUint32(table + index * 8, to | flags, true)
  const pages = Array.from({ length: PAGES }, frame)
  /** Tables of the last level: the kernel's, the user's. */
  const lastLevel: number[] = []
  const tree = (mapped: readonly number[]): number => {
    const [root, level3, level2, level1] = [frame(), frame(), frame(), frame()] as const
    link(root, 0, level3)
    link(level3, 0, level2)
    link(level2, 0, level1)
    for (const page of mapped) link(level1, page, pages[page]!)
    lastLevel.push(level1)
    return root
  }
  const kernel = tree([1, 2, 3, 4, 5, 6, GDT_PAGE])
  const user = tree([5, 6, GDT_PAGE])
  const info = frame()
  const metrics = createTestMetrics()
  const calls: bigint[] = []
  const roots = { kernel: 0, user: 0 }
  const tables: Partial<TableCalls> = {
    machineFrames: 4096,
    descriptorTable: () => BigInt(GDT_PAGE * 4096),
    localDescriptorTable: () => 0n,
    setRoot(_vcpu, which, number) {
      roots[which] = number
      port!.setRoots!(roots.kernel * 4096, roots.user * 4096)
      return 'ok'
    },
    tableEntryAt: () => undefined,
    hostAddress: (machine) => hpa(machine),
  }
  let port: Parameters<X86VcpuPorts['paging']['attach']>[0] | undefined
  const abi = {
    cpuid: () => {},
    readMsr: () => undefined,
    writeMsr: () => undefined,
    hypercall({ registers, pv }: GuestAbiVcpu) {
      calls.push(registers.rax)
      if (registers.rax === BigInt(IRET)) pv!.returnFromTrap()
      else if (registers.rax === BigInt(STOP)) pv!.sleep(true)
      return 'done'
    },
  }
  const paging = { tableCalls: tables, attach: (given: typeof port) => void (port = given) }
  const ports = { paging, abi, clock: createTestClock(), metrics, log: createTestLog() } as unknown as X86VcpuPorts
  const vcpu = new ParavirtVcpu(0, host, ports, tables as TableCalls, { compile: false, codeCache: 4 << 20 })
  const { pv } = vcpu
  pv.setInfo(hpa(info))
  const put = (linear: number, bytes: readonly number[]): void =>
    host.bytes.set(bytes, pages[linear >>> 12]! + (linear & 0xfff))
  const handle = (slot: number, bytes: readonly number[] = stop): void => put(Number(handlerOf(slot)), bytes)
  for (let vector = 0; vector < 32; vector++) {
    pv.setTrap({ vector, address: handlerOf(vector), privilege: 0, masksEvents: false })
    handle(vector)
  }
  pv.setCallback('syscall', handlerOf(SLOT.syscall), false)
  pv.setCallback('event', handlerOf(SLOT.event), true)
  handle(SLOT.syscall)
  handle(SLOT.event)
  tables.setRoot!(0, 'user', user / 4096)
  return {
    ...{ vcpu, pv, host, calls, metrics, tables, put, handle },
    machineOf: (linear: number): number => pages[linear >>> 12]!,
    /** The kernel may only read that page. */
    protect: (linear: number): void => link(lastLevel[0]!, linear >>> 12, pages[linear >>> 12]!, P | US),
    /** Runs the kernel's code to a stop. */
    run(code: readonly number[], patch: Partial<VcpuState> = {}) {
      put(KERNEL_CODE, code)
      vcpu.writeState({ rip: BigInt(KERNEL_CODE), rsp: KERNEL_STACK, cr3: BigInt(kernel), ...patch })
      const { reason } = vcpu.run(10_000)
      return { reason, state: vcpu.readState() }
    },
    info: (at: number): number => host.bytes[info + at]!,
    setInfo: (at: number, value: number): void => void (host.bytes[info + at] = value),
    faultAddress: (): bigint => host.view.getBigUint64(info + 16, true),
    word: (linear: bigint): bigint =>
      host.view.getBigUint64(pages[Number(linear >> 12n)]! + Number(linear & 0xfffn), true),
    /** A frame for the return call, at the top of the kernel's stack; RSP for it. */
    returnFrame(words: readonly bigint[]): bigint {
      const at = KERNEL_STACK - 0x100n
      words.forEach((value, n) =>
        host.view.setBigUint64(
          pages[Number(at >> 12n)]! + Number(at & 0xfffn) + n * 8,
          BigInt.asUintN(64, value),
          true,
        ),
      )
      return at
    },
    count: (name: string): number => metrics.samples().find((sample) => sample.name === name)?.value ?? 0,
  }
}
