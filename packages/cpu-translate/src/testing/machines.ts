/** A small 64-bit machine on any CPU mode, with shadow paging under each: what a guest does is compared between modes. */

import { gpa } from '@nonroot/contracts'
import type { CpuMode, HostContext, VcpuExit, VcpuState, VcpuStatePatch, X86Vcpu, X86VcpuPorts } from '@nonroot/contracts'
import { createVmxMode } from '@nonroot/cpu-vmx'
import { createShadowPaging } from '@nonroot/mmu'
import {
  createTestClock,
  createTestGuestMemory,
  createTestHostMemory,
  createTestLog,
  createTestMetrics,
} from '@nonroot/testkit'
import { createTranslateMode } from '../mode.ts'

export const MODES = ['vmx', 'translate', 'off'] as const
export type ModeName = (typeof MODES)[number]

/** Guest-physical addresses beyond are devices. */
const RAM = 256 << 10
const HOST_FRAMES = 8192
/** Where the kernel sees physical memory. User code sees it at 0. */
export const KERNEL = 0xffff_ffff_8000_0000n
const PML4 = 0x10000
const PDPT_LOW = 0x11000
const DIRECTORY_LOW = 0x12000
const PDPT_HIGH = 0x13000
const DIRECTORY_HIGH = 0xf000
const GDT = 0x14000
const LDT = 0x15000
const IDT = 0x16000
const TSS = 0x17000
const HANDLERS = 0x18000
export const CODE = 0x20000
export const DATA = 0x28000
export const STACK = 0x2e000
const KERNEL_STACK = 0x2f000
const TABLES = { from: DIRECTORY_HIGH, to: PDPT_HIGH + 0x1000 }
/** What may differ after a program starts here. */
export const COMPARED = { from: 0x14000, to: 0x30000 }

export const SELECTOR = { code: 8, data: 0x10, userCode: 0x1b, userData: 0x23, tss: 0x28, ldt: 0x38, absent: 0x48, conforming: 0x50, local: 7 } as const
/** Its handler counts at DATA + 0xff8 and returns. */
export const COUNTING_VECTOR = 0x40

// No page is global: whether one survives a write of CR3 is the processor's choice, and the modes choose differently.
/** In the first byte of an entry. */
const ACCESSED_DIRTY = 0x60
const [P, W, U, LARGE] = [1n, 2n, 4n, 0x80n]
const DESCRIPTORS: readonly (readonly [selector: number, value: bigint])[] = [
  [SELECTOR.code, 0x00af_9b00_0000_ffffn],
  [SELECTOR.data, 0x00cf_9300_0000_ffffn],
  [SELECTOR.userCode & ~7, 0x00af_fb00_0000_ffffn],
  [SELECTOR.userData & ~7, 0x00cf_f300_0000_ffffn],
  [SELECTOR.tss, (0x8bn << 40n) | systemBase(TSS) | 0x67n],
  [SELECTOR.tss + 8, 0xffff_ffffn],
  [SELECTOR.ldt, (0x82n << 40n) | systemBase(LDT) | 0xfn],
  [SELECTOR.ldt + 8, 0xffff_ffffn],
  [SELECTOR.absent, 0x00cf_1300_0000_ffffn],
  [SELECTOR.conforming, 0x00af_9f00_0000_ffffn],
]
function systemBase(physical: number): bigint {
  const low = BigInt.asUintN(32, KERNEL + BigInt(physical))
  return ((low & 0xff_ffffn) << 16n) | ((low >> 24n) << 56n)
}

export interface Machine {
  readonly vcpu: X86Vcpu
  readonly metrics: ReturnType<typeof createTestMetrics>
  /** Runs a program from the start of the machine's life to HLT: how it ended, state and memory. */
  run(program: readonly number[], options?: RunOptions): Outcome
}
export interface RunOptions {
  /** CPL 1 and 2 with the kernel's segments. */
  readonly cpl?: 0 | 1 | 2 | 3
  readonly state?: VcpuStatePatch
  /** The vCPU is saved and restored after so many instructions, again and again. */
  readonly savesEvery?: number
  /** Where the program is: an offset from CODE. */
  readonly at?: number
  /** Bytes at DATA. */
  readonly data?: readonly number[]
}
export interface Outcome {
  readonly reason: VcpuExit['reason']
  readonly state: VcpuState
  readonly memory: Uint8Array
  /** Entries of its page tables are others than at the start. */
  readonly changedTables: boolean
}

/** `cache`: bytes for translated code. */
export function createMachine(name: ModeName, { cache = 1 << 20 } = {}): Machine {
  const host = createTestHostMemory(HOST_FRAMES)
  const metrics = createTestMetrics()
  const strategy = { of: undefined as ReturnType<typeof createShadowPaging> | undefined }
  const paging = {
    onMemoryChange: (...change: Parameters<ReturnType<typeof createShadowPaging>['onMemoryChange']>) =>
      strategy.of?.onMemoryChange(...change),
  }
  const guestMemory = createTestGuestMemory({ hostMemory: host, ram: RAM, paging: paging as never })
  strategy.of = createShadowPaging({}, { hostMemory: host, guestMemory, guestFrames: guestMemory, metrics })
  const ports = {
    paging: strategy.of,
    abi: { cpuid: () => {}, readMsr: () => undefined, writeMsr: () => undefined, hypercall: () => 'unknown' },
    interrupts: {
      hasPending: () => false,
      acknowledge: () => -1,
      signals: () => 0,
      takeSignal: () => 0,
      readTaskPriority: () => 0,
      writeTaskPriority: () => {},
      readMsr: () => undefined,
      writeMsr: () => undefined,
    },
    io: {
      readPort: (port: number) => port & 0xff,
      writePort: () => true,
      readMmio: (address: number) => address & 0xff,
      writeMmio: () => true,
    },
    capability: () => undefined,
    clock: createTestClock(),
    guestMemory,
    guestFrames: guestMemory,
    entropy: { fill: (into: Uint8Array) => into.fill(0x5a) },
    metrics,
    log: createTestLog(),
  } as unknown as X86VcpuPorts
  const context = { hostMemory: host, metrics, log: createTestLog() } as unknown as HostContext
  const mode: CpuMode =
    name === 'vmx'
      ? createVmxMode({ codeCacheMiB: 4 }, context)
      : createTranslateMode({ codeCacheMiB: 4, translationCacheMiB: cache / 2 ** 20, translate: name === 'off' ? 'off' : 'on' }, context)
  const vcpu = mode.createVcpu(0, ports) as X86Vcpu
  const image = startImage()
  const tables = new Uint8Array(TABLES.to - TABLES.from)
  /** Entries that a program has changed, accessed flags among them, are as at the start, and the paging strategy was notified. */
  const restoreTables = (): void => {
    guestMemory.readBytes(gpa(TABLES.from), tables)
    for (let at = 0; at < tables.length; at += 8) {
      const entry = image.subarray(TABLES.from + at, TABLES.from + at + 8)
      if (entry.every((byte, n) => byte === tables[at + n])) continue
      guestMemory.writeBytes(gpa(TABLES.from + at), entry)
      strategy.of!.onTableUpdate(undefined as never, gpa(TABLES.from + at), 8)
    }
  }

  return {
    vcpu,
    metrics,
    run(program, { cpl = 0, at = 0, state, savesEvery, data = [] } = {}) {
      image.set(data, DATA)
      const code = CODE + at
      image.set([...program, 0xf4], code)
      restoreTables()
      guestMemory.writeBytes(gpa(0), image)
      image.fill(0, DATA, DATA + data.length)
      image.fill(0, code, code + program.length + 1)
      vcpu.reset('powerUp')
      vcpu.writeState({ ...startState(cpl, code), ...state })
      let reason: VcpuExit['reason'] = 'budget'
      // Translated code counts the branches that it adds. In one slice, as a repeated store over its own code ends where the slice does.
      const budget = name === 'vmx' ? 20_000 : 100_000
      const slice = savesEvery ?? budget
      for (let left = budget; left > 0 && reason === 'budget'; left -= slice) {
        reason = vcpu.run(slice).reason
        if (savesEvery && reason === 'budget') vcpu.restore(vcpu.save())
      }
      const memory = new Uint8Array(COMPARED.to - COMPARED.from)
      guestMemory.readBytes(gpa(COMPARED.from), memory)
      guestMemory.readBytes(gpa(TABLES.from), tables)
      const changedTables = tables.some((byte, n) => (byte ^ image[TABLES.from + n]!) & (n % 8 ? 0xff : ~ACCESSED_DIRTY))
      return { reason, state: comparable(vcpu.readState()), memory, changedTables }
    },
  }
}

/** Memory at the start, but for program and data. */
function startImage(): Uint8Array {
  const image = new Uint8Array(RAM)
  const view = new DataView(image.buffer)
  const write = (at: number, value: bigint): void => view.setBigUint64(at, BigInt.asUintN(64, value), true)
  write(PML4, BigInt(PDPT_LOW) | P | W | U)
  write(PML4 + 511 * 8, BigInt(PDPT_HIGH) | P | W)
  write(PDPT_LOW, BigInt(DIRECTORY_LOW) | P | W | U)
  write(PDPT_HIGH + 510 * 8, BigInt(DIRECTORY_HIGH) | P | W)
  for (let n = 0; n < 2; n++) {
    write(DIRECTORY_LOW + n * 8, BigInt(n << 21) | P | W | U | LARGE)
    write(DIRECTORY_HIGH + n * 8, BigInt(n << 21) | P | W | LARGE)
  }
  for (const [selector, value] of DESCRIPTORS) write(GDT + selector, value)
  write(LDT, 0x00cf_f300_0000_ffffn)
  write(TSS + 4, KERNEL + BigInt(KERNEL_STACK))
  view.setUint16(TSS + 0x66, 0xffff, true)
  for (let vector = 0; vector < 256; vector++) {
    const handler = KERNEL + BigInt(HANDLERS + vector * 16)
    const rights = vector === 3 || vector >= 32 ? 0xeen : 0x8en
    write(IDT + vector * 16, (handler & 0xffffn) | (8n << 16n) | (rights << 40n) | (((handler >> 16n) & 0xffffn) << 48n))
    write(IDT + vector * 16 + 8, 0xffff_ffffn)
    image[HANDLERS + vector * 16] = 0xf4
  }
  // inc qword [DATA + 0xff8]; iret
  image.set([0x48, 0xff, 0x04, 0x25, ...little(KERNEL + BigInt(DATA + 0xff8), 4), 0x48, 0xcf], HANDLERS + COUNTING_VECTOR * 16)
  return image
}

export const little = (value: bigint, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, n) => Number((value >> BigInt(8 * n)) & 0xffn))

function startState(cpl: 0 | 1 | 2 | 3, code: number): VcpuStatePatch {
  const isUser = cpl === 3
  const at = (physical: number): bigint => (isUser ? 0n : KERNEL) + BigInt(physical)
  const flat = (selector: number, attributes: number) => ({ selector, base: 0n, limit: 0xffff_ffff, attributes })
  const data = isUser ? flat(SELECTOR.userData, 0xc0f3) : flat(SELECTOR.data | cpl, 0xc093 | (cpl << 5))
  return {
    cr0: 0x8005_0033n,
    cr3: BigInt(PML4),
    // PAE, PGE, OSFXSR, OSXMMEXCPT, FSGSBASE
    cr4: 0x1_06a0n,
    efer: 0xd01n,
    cs: isUser ? flat(SELECTOR.userCode, 0xa0fb) : flat(SELECTOR.code | cpl, 0xa09b | (cpl << 5)),
    ss: data,
    ds: data,
    es: data,
    fs: { ...data, base: at(DATA) },
    gs: { ...data, base: at(DATA + 0x100) },
    tr: { selector: SELECTOR.tss, base: KERNEL + BigInt(TSS), limit: 0x67, attributes: 0x8b },
    ldtr: { selector: SELECTOR.ldt, base: KERNEL + BigInt(LDT), limit: 0xf, attributes: 0x82 },
    gdtr: { base: KERNEL + BigInt(GDT), limit: 0x5f },
    idtr: { base: KERNEL + BigInt(IDT), limit: 0xfff },
    rflags: 0x202n,
    rsp: at(STACK),
    rbx: at(DATA),
    rip: at(code),
    activity: 'active',
  }
}

const TSC = 0x10
function comparable({ msrs, ...state }: VcpuState): VcpuState {
  return { ...state, msrs: new Map([...msrs].filter(([index]) => index !== TSC)) }
}
