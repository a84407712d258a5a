/** A machine of nothing but a processor and memory, for tests of the system side. No devices: ports are a log, MMIO is an array. */
import type { HostMemory } from '@nonroot/contracts'
import type { ProcessorHost } from '../state/core.ts'
import { Processor, type ProcessorOptions, type StopReason } from '../processor.ts'
import { updatePaging } from '../paging/walk.ts'
import { flushAll } from '../paging/tlb/tlb.ts'
import { writeFlags, readFlags } from '../state/flags.ts'
import { gpr, S, SEGMENT } from '../state/layout.ts'
import { setAllBounds, setSegment } from '../state/segments.ts'
import { updateBreakpoints, updateMode } from '../control/update-mode.ts'

/** Where things lie in guest-physical memory. */
export const PLACE = {
  gdt: 0x1000,
  idt: 0x2000,
  tss: 0x3000,
  ldt: 0x3800,
  tss2: 0x3a00,
  handlers: 0x4000,
  code: 0x8000,
  stack: 0x7000,
  kernelStack: 0x6000,
  tables: 0x10000,
  data: 0x20000,
} as const
/** Selectors of the GDT that `enter` writes. */
export const SELECTOR = {
  code32: 0x08,
  data: 0x10,
  code64: 0x18,
  userCode32: 0x23,
  userData: 0x2b,
  userCode64: 0x33,
  tss: 0x38,
  tss2: 0x48,
  code16: 0x50,
  data16: 0x58,
  ldt: 0x60,
  free: 0x70,
} as const
/** Handlers are one HLT each: vector n stops at PLACE.handlers + n (+1, for RIP is behind it). */
export const handlerOf = (vector: number): number => PLACE.handlers + vector * 8

const HOST_FRAMES = 6144
const GUEST_BASE = 16 << 20
export const GUEST_SIZE = 4 << 20

function hostMemory(): HostMemory {
  const pages = (HOST_FRAMES * 4096) / 65536
  const memory = new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
  const codeHolders = new Uint16Array(memory.buffer, 4096, HOST_FRAMES)
  const watchers = new Set<(address: number, length: number) => void>()
  let next = 1 + Math.ceil((HOST_FRAMES * 2) / 4096)
  return {
    memory,
    bytes: new Uint8Array(memory.buffer),
    view: new DataView(memory.buffer),
    words: new Int32Array(memory.buffer),
    totalFrames: HOST_FRAMES,
    freeFrames: 0,
    codeHolders,
    allocateFrame: () => undefined,
    allocateFrames: (count: number) => (next += count) && (next - count) * 4096,
    shareFrame: () => {},
    references: () => 1,
    freeFrame: () => {},
    setApart: () => {},
    noteWrite: (address: number, length: number) => watchers.forEach((watcher) => watcher(address, length)),
    watchWrites: (watcher: (address: number, length: number) => void) => (watchers.add(watcher), () => void watchers.delete(watcher)),
  } as unknown as HostMemory
}

export class BareMetal {
  readonly processor: Processor
  readonly memory: HostMemory
  /** Ports written: [port, size, value]. */
  readonly written: [number, number, number][] = []
  readonly portInput = new Map<number, number>()
  /** Device accesses: [physical, size, value or undefined for reads]. */
  readonly deviceLog: [number, number, number | undefined][] = []
  /** Called after each device access is logged. */
  onDevice = (): void => {}
  tsc = 0n

  /** `memory`: another machine's, which then has several processors. */
  constructor(options: Pick<ProcessorOptions, 'compile' | 'prebuilt' | 'exactBudget' | 'regionMemory'> & { readonly memory?: HostMemory | undefined } = {}) {
    const machine = this
    this.memory = options.memory ?? hostMemory()
    const host: ProcessorHost = {
      memory: this.memory,
      hostAddress: (physical) => (physical < GUEST_SIZE ? GUEST_BASE + physical : -1),
      readPort: (port, size) => machine.portInput.get(port) ?? 2 ** (8 * size) - 1,
      writePort: (port, size, value) => void machine.written.push([port, size, value]),
      readDevice: (physical, size) => {
        machine.deviceLog.push([physical, size, undefined])
        machine.onDevice()
        return size === 1 ? 0xd1 : size === 2 ? 0xd2d1 : 0xd4d3d2d1
      },
      writeDevice: (physical, size, value) => {
        machine.deviceLog.push([physical, size, value])
        machine.onDevice()
      },
      readTsc: () => (machine.tsc += 1000n),
      tscFrequency: 1e9,
      readMsr: () => undefined,
      writeMsr: () => false,
      random64: () => 0x0123_4567_89ab_cdefn,
      readTaskPriority: () => 0,
      writeTaskPriority: () => {},
    }
    this.processor = new Processor(host, { codeCache: 4 << 20, compile: false, ...options })
  }

  get core() {
    return this.processor.core
  }

  // --- guest-physical memory ---
  write(address: number, bytes: ArrayLike<number>): void {
    this.memory.bytes.set(bytes, GUEST_BASE + address)
    this.core.code.invalidate(GUEST_BASE + address, bytes.length)
  }
  write16(address: number, value: number): void {
    this.memory.view.setUint16(GUEST_BASE + address, value, true)
  }
  write32(address: number, value: number): void {
    this.memory.view.setUint32(GUEST_BASE + address, value, true)
  }
  write64(address: number, value: bigint): void {
    this.memory.view.setBigUint64(GUEST_BASE + address, BigInt.asUintN(64, value), true)
  }
  read16(address: number): number {
    return this.memory.view.getUint16(GUEST_BASE + address, true)
  }
  read32(address: number): number {
    return this.memory.view.getUint32(GUEST_BASE + address, true)
  }
  read64(address: number): bigint {
    return this.memory.view.getBigUint64(GUEST_BASE + address, true)
  }

  // --- registers ---
  get rip(): number {
    return Number(this.core.get64(S.rip))
  }
  register(n: number): bigint {
    return this.core.register(n)
  }
  set(n: number, value: bigint | number): void {
    this.core.setRegister(n, BigInt(value))
  }
  get flags(): number {
    return readFlags(this.core)
  }
  set flags(value: number) {
    writeFlags(this.core, value)
    updateMode(this.core)
  }
  get rsp(): number {
    return Number(this.core.get64(gpr(4)))
  }

  /** A descriptor in the GDT. `access`: byte 5; `flags`: the upper four bits of byte 6. */
  descriptor(selector: number, base: number, limit: number, access: number, flags = 0): void {
    const at = PLACE.gdt + (selector & ~7)
    this.write32(at, ((base & 0xffff) << 16) | (limit & 0xffff))
    this.write32(
      at + 4,
      ((base >>> 16) & 0xff) | (access << 8) | (limit & 0xf0000) | (flags << 20) | (base & 0xff000000),
    )
  }
  gate(selector: number, target: number, offset: number, access: number, parameters = 0): void {
    const at = PLACE.gdt + (selector & ~7)
    this.write32(at, (target << 16) | (offset & 0xffff))
    this.write32(at + 4, (offset & 0xffff0000) | (access << 8) | parameters)
  }
  /** An IDT gate of 8 bytes, or 16 in long mode. */
  interruptGate(vector: number, selector: number, offset: number, access: number, ist = 0): void {
    const long = (this.core.get32(S.efer) & 0x400) !== 0
    const at = PLACE.idt + vector * (long ? 16 : 8)
    this.write32(at, (selector << 16) | (offset & 0xffff))
    this.write32(at + 4, (offset & 0xffff0000) | (access << 8) | ist)
    if (long) this.write64(at + 8, 0n)
  }

  /** Puts the processor into a mode with flat segments, an IDT whose handlers halt, a TSS, and identity paging in long mode. */
  enter(mode: 'real' | 'protected' | 'long' | 'compatibility', cpl: 0 | 3 = 0): void {
    const { core } = this
    const long = mode === 'long' || mode === 'compatibility'
    core.set64(S.cr0, mode === 'real' ? 0x10n : long ? 0x8005_0033n : 0x33n)
    core.set64(S.cr4, long ? 0x6a0n : 0x600n)
    core.set64(S.efer, long ? 0xd01n : 0n)
    core.set64(S.cr3, BigInt(PLACE.tables))
    core.set64(S.xcr0, 3n)
    core.set64(S.dr7, 0x400n)
    updateBreakpoints(core)
    if (long) this.#identity()
    updatePaging(core)
    flushAll(core)
    this.#tables(long)
    writeFlags(core, 2)
    core.set32(S.cpl, cpl)
    this.#segments(mode, cpl)
    setAllBounds(core)
    updateMode(core)
    core.set64(gpr(4), BigInt(PLACE.stack))
    core.set64(S.rip, BigInt(PLACE.code))
  }

  #identity(): void {
    const { tables } = PLACE
    this.write64(tables, BigInt(tables + 0x1007))
    this.write64(tables + 0x1000, BigInt(tables + 0x2007))
    for (let n = 0; n < 2; n++) this.write64(tables + 0x2000 + 8 * n, BigInt(n * 0x20_0000 + 0x87))
  }

  #tables(long: boolean): void {
    const { core } = this
    this.write64(PLACE.gdt, 0n)
    this.descriptor(SELECTOR.code32, 0, 0xfffff, 0x9b, 0xc)
    this.descriptor(SELECTOR.data, 0, 0xfffff, 0x93, 0xc)
    this.descriptor(SELECTOR.code64, 0, 0xfffff, 0x9b, 0xa)
    this.descriptor(SELECTOR.userCode32, 0, 0xfffff, 0xfb, 0xc)
    this.descriptor(SELECTOR.userData, 0, 0xfffff, 0xf3, 0xc)
    this.descriptor(SELECTOR.userCode64, 0, 0xfffff, 0xfb, 0xa)
    this.descriptor(SELECTOR.tss, PLACE.tss, 0x7ff, 0x8b)
    this.write64(PLACE.gdt + SELECTOR.tss + 8, 0n)
    this.descriptor(SELECTOR.tss2, PLACE.tss2, 0x67, 0x89)
    this.descriptor(SELECTOR.code16, 0, 0xffff, 0x9b)
    this.descriptor(SELECTOR.data16, 0, 0xffff, 0x93)
    this.descriptor(SELECTOR.ldt, PLACE.ldt, 0xff, 0x82)
    for (let vector = 0; vector < 256; vector++) {
      this.interruptGate(vector, long ? SELECTOR.code64 : SELECTOR.code32, handlerOf(vector), 0x8e)
      this.write(handlerOf(vector), [0xf4])
    }
    if (long) {
      for (let n = 0; n < 3; n++) this.write64(PLACE.tss + 4 + 8 * n, BigInt(PLACE.kernelStack))
      for (let n = 1; n < 8; n++) this.write64(PLACE.tss + 0x1c + 8 * n, BigInt(PLACE.kernelStack - 0x100 * n))
    } else {
      this.write32(PLACE.tss + 4, PLACE.kernelStack)
      this.write32(PLACE.tss + 8, SELECTOR.data)
    }
    this.write16(PLACE.tss + 0x66, 0xffff) // no I/O bitmap
    setSegment(core, SEGMENT.gdtr, 0, PLACE.gdt, 0, 0xff, 0)
    setSegment(core, SEGMENT.idtr, 0, PLACE.idt, 0, 0xfff, 0)
    setSegment(core, SEGMENT.tr, SELECTOR.tss, PLACE.tss, 0, 0x7ff, 0x8b)
    setSegment(core, SEGMENT.ldtr, 0, 0, 0, 0, 0x1_0000)
  }

  #segments(mode: string, cpl: number): void {
    const { core } = this
    if (mode === 'real') {
      for (let n = 0; n < 6; n++) setSegment(core, n, 0, 0, 0, 0xffff, n === SEGMENT.cs ? 0x9b : 0x93)
      setSegment(core, SEGMENT.idtr, 0, 0, 0, 0x3ff, 0)
      for (let vector = 0; vector < 256; vector++) this.write32(vector * 4, handlerOf(vector))
      return
    }
    const dpl = cpl << 5
    const code =
      mode === 'long' ? (cpl ? SELECTOR.userCode64 : SELECTOR.code64) : cpl ? SELECTOR.userCode32 : SELECTOR.code32
    setSegment(core, SEGMENT.cs, code, 0, 0, -1, (mode === 'long' ? 0xa09b : 0xc09b) | dpl)
    for (const n of [0, 2, 3, 4, 5])
      setSegment(core, n, cpl ? SELECTOR.userData : SELECTOR.data, 0, 0, -1, 0xc093 | dpl)
  }

  /** Runs `code` from PLACE.code until something halts (or the budget ends). */
  run(code: ArrayLike<number>, budget = 10_000): StopReason {
    this.write(PLACE.code, code)
    this.core.set64(S.rip, BigInt(PLACE.code))
    return this.go(budget)
  }
  /** On from RIP. STI's shadow is stepped over as a real host would. */
  go(budget = 10_000): StopReason {
    for (;;) {
      const stop = this.processor.run(budget)
      if (stop !== 'attention') return stop
      this.core.set32(S.attention, 0)
    }
  }
  /** Vector of the handler that halted, or -1. */
  get vector(): number {
    const at = this.rip - 1 - PLACE.handlers
    return at >= 0 && at < 2048 && at % 8 === 0 ? at / 8 : -1
  }
  /** Error code, RIP, CS, flags, RSP, SS as a long-mode handler finds them. `error`: an error code was pushed. */
  frame(error: boolean, size = 8): { error: number; rip: number; cs: number; flags: number; rsp: number; ss: number } {
    const read = (n: number) =>
      size === 8
        ? Number(this.read64(this.rsp + 8 * n))
        : size === 4
          ? this.read32(this.rsp + 4 * n)
          : this.read16(this.rsp + 2 * n)
    const at = error ? 1 : 0
    return {
      error: error ? read(0) : 0,
      rip: read(at),
      cs: read(at + 1) & 0xffff,
      flags: read(at + 2),
      rsp: read(at + 3),
      ss: read(at + 4) & 0xffff,
    }
  }
}
