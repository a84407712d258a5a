import { VcpuSignal } from '@nonroot/contracts'
import { createDeviceBench } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { PcInterruptController, type PcInterruptControllerOptions } from './interrupt-controller.ts'
import { ApicRegister as R } from './registers.ts'

const APIC = 0xfee00000
const IO_APIC = 0xfec00000

function start(vcpuCount = 2, options: Partial<PcInterruptControllerOptions> = {}) {
  const bench = createDeviceBench()
  const controller = new PcInterruptController(bench.context, { vcpuCount, ioApicAddress: IO_APIC, ...options })
  const woken: number[] = []
  controller.attach({ wake: (vcpu) => void woken.push(vcpu) })
  const read = (register: number, vcpu = 0): number => {
    controller.hasPending(vcpu)
    return bench.readMmio(APIC + register)
  }
  const write = (register: number, value: number, vcpu = 0): void => {
    controller.hasPending(vcpu)
    bench.writeMmio(APIC + register, value)
  }
  const redirect = (pin: number, low: number, high = 0): void => {
    bench.writeMmio(IO_APIC, 0x11 + pin * 2)
    bench.writeMmio(IO_APIC + 0x10, high)
    bench.writeMmio(IO_APIC, 0x10 + pin * 2)
    bench.writeMmio(IO_APIC + 0x10, low)
  }
  const entry = (pin: number): number => {
    bench.writeMmio(IO_APIC, 0x10 + pin * 2)
    return bench.readMmio(IO_APIC + 0x10)
  }
  for (let vcpu = 0; vcpu < vcpuCount; vcpu++) {
    write(R.spuriousVector, 0x1ff, vcpu)
    write(R.lvtLint0, 0x10000, vcpu)
  }
  woken.length = 0
  const take = (vcpu = 0): number => (controller.hasPending(vcpu) ? controller.acknowledge(vcpu) : -1)
  const eoi = (vcpu = 0): void => write(R.endOfInterrupt, 0, vcpu)
  const x2apic = (vcpu: number): void => {
    controller.writeMsr(vcpu, 0x1b, controller.readMsr(vcpu, 0x1b)! | 0x400n)
  }
  return { ...bench, controller, woken, read, write, redirect, entry, take, eoi, x2apic }
}

describe('local APIC registers', () => {
  it.each([
    { register: R.id, vcpu: 1, value: 0x01000000 },
    { register: R.version, vcpu: 0, value: 0x01050014 },
    { register: R.lvtTimer, vcpu: 0, value: 0x10000 },
    { register: R.destinationFormat, vcpu: 0, value: 0xffffffff },
    { register: R.spuriousVector, vcpu: 0, value: 0x1ff },
  ])('reads $register', ({ register, vcpu, value }) => {
    expect(start().read(register, vcpu)).toBe(value)
  })

  it.each([
    { register: R.taskPriority, written: 0xfff, value: 0xff },
    { register: R.logicalDestination, written: 0xffffffff, value: 0xff000000 },
    { register: R.destinationFormat, written: 0, value: 0x0fffffff },
    { register: R.lvtTimer, written: 0xffffffff, value: 0x700ff },
    { register: R.lvtLint0, written: 0xffffffff, value: 0x1a7ff },
    { register: R.divideConfiguration, written: 0xff, value: 0x0b },
    { register: R.version, written: 0, value: 0x01050014 },
  ])('keeps of $register what can be written', ({ register, written, value }) => {
    const { read, write } = start()
    write(register, written)
    expect(read(register)).toBe(value)
  })

  it('masks every LVT entry when disabled by software', () => {
    const { read, write } = start()
    write(R.lvtTimer, 0x30)
    write(R.spuriousVector, 0xff)
    expect(read(R.lvtTimer)).toBe(0x10030)
    write(R.lvtTimer, 0x30)
    expect(read(R.lvtTimer)).toBe(0x10030)
  })

  it('passes the 8259 on after power-up, through LINT0 of the first processor only', () => {
    const { controller } = start()
    controller.reset()
    controller.line(4)!.raise()
    expect(controller.hasPending(0)).toBe(true)
    expect(controller.hasPending(1)).toBe(false)
  })
})

describe('priorities', () => {
  it('delivers by vector, nests, ends', () => {
    const { controller, take, eoi, read } = start()
    for (const vector of [0x31, 0x62, 0x45]) controller.messages.send(APIC, vector)
    expect(read(R.interruptRequest + 0x30)).toBe(1 << 2)
    expect(take()).toBe(0x62)
    expect(take()).toBe(-1)
    expect(read(R.processorPriority)).toBe(0x60)
    controller.messages.send(APIC, 0x6f) // the same class waits
    expect(take()).toBe(-1)
    controller.messages.send(APIC, 0x71)
    expect(take()).toBe(0x71)
    eoi()
    eoi()
    expect(take()).toBe(0x6f)
    eoi()
    expect(take()).toBe(0x45)
    eoi()
    expect(take()).toBe(0x31)
    eoi()
    expect(read(R.processorPriority)).toBe(0)
  })

  it('waits for the task priority, also by CR8', () => {
    const { controller, take, woken } = start()
    controller.writeTaskPriority(0, 4)
    controller.messages.send(APIC, 0x41)
    expect([controller.hasPending(0), woken.length]).toEqual([false, 0])
    controller.writeTaskPriority(0, 3)
    expect(woken).toEqual([0])
    expect(take()).toBe(0x41)
  })

  it('keeps a vector once however often it is sent', () => {
    const { controller, take, eoi } = start()
    controller.messages.send(APIC, 0x41)
    controller.messages.send(APIC, 0x41)
    expect(take()).toBe(0x41)
    eoi()
    expect(take()).toBe(-1)
  })
})

describe('messages', () => {
  const flat = (bench: ReturnType<typeof start>, count: number): void => {
    for (let vcpu = 0; vcpu < count; vcpu++) bench.write(R.logicalDestination, 1 << (24 + vcpu), vcpu)
  }
  it.each([
    { name: 'physical', address: 0xfee01000, to: [1] },
    { name: 'physical broadcast', address: 0xfeeff000, to: [0, 1, 2] },
    { name: 'logical flat', address: 0xfee05004, to: [0, 2] },
    { name: 'logical to nobody', address: 0xfee08004, to: [] },
    { name: 'not a message', address: 0xfed00000, to: [] },
  ])('$name', ({ address, to }) => {
    const bench = start(3)
    flat(bench, 3)
    bench.controller.messages.send(address, 0x55)
    expect([0, 1, 2].filter((vcpu) => bench.controller.hasPending(vcpu))).toEqual(to)
  })

  it('logical cluster', () => {
    const bench = start(3)
    for (let vcpu = 0; vcpu < 3; vcpu++) {
      bench.write(R.destinationFormat, 0x0fffffff, vcpu)
      bench.write(R.logicalDestination, [0x11000000, 0x12000000, 0x21000000][vcpu]!, vcpu)
    }
    bench.controller.messages.send(0xfee13004, 0x55)
    expect([0, 1, 2].map((vcpu) => bench.controller.hasPending(vcpu))).toEqual([true, true, false])
  })

  it('lowest priority goes to one, in turns', () => {
    const bench = start(2)
    flat(bench, 2)
    bench.controller.messages.send(0xfee0300c, 0x155)
    bench.controller.messages.send(0xfee0300c, 0x155)
    expect([bench.take(0), bench.take(1)]).toEqual([0x55, 0x55])
    bench.controller.writeTaskPriority(0, 9)
    bench.eoi(1)
    bench.controller.messages.send(0xfee0300c, 0x166)
    expect([bench.take(0), bench.take(1)]).toEqual([-1, 0x66])
  })
})

describe('interprocessor interrupts', () => {
  it.each([
    { name: 'physical', high: 0x01000000, low: 0x4055, to: [1] },
    { name: 'self', high: 0, low: 0x44055, to: [0] },
    { name: 'all', high: 0, low: 0x84055, to: [0, 1, 2] },
    { name: 'all but self', high: 0, low: 0xc4055, to: [1, 2] },
    { name: 'broadcast', high: 0xff000000, low: 0x4055, to: [0, 1, 2] },
  ])('$name', ({ high, low, to }) => {
    const { controller, write } = start(3)
    write(R.interruptCommandHigh, high)
    write(R.interruptCommandLow, low)
    expect([0, 1, 2].filter((vcpu) => controller.hasPending(vcpu))).toEqual(to)
  })

  it('INIT and SIPI start a processor once', () => {
    const { controller, woken, write } = start()
    write(R.interruptCommandHigh, 0x01000000)
    write(R.interruptCommandLow, 0xc500)
    write(R.interruptCommandLow, 0x8500) // de-assert: nothing
    expect(controller.signals(1)).toBe(VcpuSignal.init)
    expect(controller.takeSignal(1, VcpuSignal.init)).toBe(0)
    write(R.interruptCommandLow, 0x4699)
    expect(controller.signals(1)).toBe(VcpuSignal.startup)
    expect(controller.takeSignal(1, VcpuSignal.startup)).toBe(0x99)
    write(R.interruptCommandLow, 0x4699)
    expect(controller.signals(1)).toBe(0)
    expect(woken).toEqual([1, 1])
  })

  it('NMI', () => {
    const { controller, write } = start()
    write(R.interruptCommandHigh, 0x01000000)
    write(R.interruptCommandLow, 0x4400)
    expect(controller.signals(1)).toBe(VcpuSignal.nmi)
    controller.takeSignal(1, VcpuSignal.nmi)
    expect(controller.signals(1)).toBe(0)
  })

  it('an illegal vector is reported in the error status register', () => {
    const { take, write, read } = start()
    write(R.lvtError, 0xfe)
    write(R.interruptCommandLow, 0x4405 & ~0x400)
    expect(take()).toBe(0xfe)
    write(R.errorStatus, 0)
    expect(read(R.errorStatus)).toBe(0x20)
    write(R.errorStatus, 0)
    expect(read(R.errorStatus)).toBe(0)
  })
})

describe('NMIs', () => {
  it.each([
    { sent: 1, taken: 1 },
    { sent: 2, taken: 2 },
    { sent: 5, taken: 2 },
  ])('$sent to a processor that does not run are $taken', ({ sent, taken }) => {
    const { controller, write } = start()
    for (let count = 0; count < sent; count++) {
      write(R.interruptCommandHigh, 1 << 24)
      write(R.interruptCommandLow, 0x4400)
    }
    const restored = start().controller
    restored.restore(structuredClone(controller.save()))
    for (const one of [controller, restored]) {
      let count = 0
      for (; one.signals(1) & VcpuSignal.nmi; count++) one.takeSignal(1, VcpuSignal.nmi)
      expect(count).toBe(taken)
    }
  })
})

describe('timer', () => {
  const ONE_SHOT = 0x40
  const PERIODIC = 0x20040
  const TSC_DEADLINE = 0x40040
  it.each([
    {
      what: 'a one-shot that runs becomes periodic',
      from: ONE_SHOT,
      after: 400,
      to: PERIODIC,
      left: 600,
      every: [600, 1600],
    },
    { what: 'a one-shot that has ended stays at zero', from: ONE_SHOT, after: 1500, to: PERIODIC, left: 0, every: [] },
    { what: 'a period under way is the last', from: PERIODIC, after: 2400, to: ONE_SHOT, left: 600, every: [600] },
    { what: 'the same mode changes nothing', from: PERIODIC, after: 2400, to: PERIODIC, left: 600, every: [600, 1600] },
    { what: 'to TSC deadline it is disarmed', from: PERIODIC, after: 2400, to: TSC_DEADLINE, left: 0, every: [] },
  ])('changes its mode: $what', ({ from, after, to, left, every }) => {
    const { write, read, clock, take, eoi } = start()
    const UNIT = 100 // microseconds: periods as long as they are delivered
    write(R.divideConfiguration, 0xb) // by 1
    write(R.lvtTimer, from)
    write(R.initialCount, 1000 * UNIT)
    for (let passed = 0; passed < after; passed += 100) {
      clock.advanceNs(100 * UNIT)
      if (take() >= 0) eoi()
    }
    write(R.lvtTimer, to)
    expect(read(R.currentCount)).toBe(left * UNIT)
    const seen: number[] = []
    for (let passed = 100; passed <= 2000; passed += 100) {
      clock.advanceNs(100 * UNIT)
      if (take() < 0) continue
      seen.push(passed)
      eoi()
    }
    expect(seen).toEqual(every)
  })

  it('changes its mode: what was due comes, and a count of zero that was written stays', () => {
    const { write, read, clock, take, eoi } = start()
    write(R.divideConfiguration, 0xb)
    write(R.lvtTimer, ONE_SHOT)
    write(R.initialCount, 1000)
    write(R.initialCount, 0)
    write(R.lvtTimer, PERIODIC)
    clock.advanceNs(1e6)
    expect([take(), read(R.currentCount)]).toEqual([-1, 0])
    write(R.initialCount, 100_000)
    clock.advanceNs(100_000)
    expect(take()).toBe(0x40)
    eoi()
  })

  it.each([
    { name: 'one-shot', lvt: 0x40, edges: 1 },
    { name: 'periodic', lvt: 0x20040, edges: 10 },
    { name: 'masked', lvt: 0x10040, edges: 0 },
  ])('$name', ({ lvt, edges }) => {
    const { write, clock, take, eoi } = start()
    write(R.divideConfiguration, 3) // by 16
    write(R.lvtTimer, lvt)
    write(R.initialCount, 62500) // 1 ms
    let count = 0
    for (let step = 0; step < 10; step++) {
      clock.advanceNs(1e6)
      if (take() === 0x40) {
        count++
        eoi()
      }
    }
    expect(count).toBe(edges)
  })

  it('shows its current count and stops at an initial count of zero', () => {
    const { write, read, clock, take } = start()
    write(R.divideConfiguration, 0xb) // by 1
    write(R.lvtTimer, 0x40)
    write(R.initialCount, 1000)
    clock.advanceNs(400)
    expect(read(R.currentCount)).toBe(600)
    write(R.initialCount, 0)
    clock.advanceNs(1e6)
    expect([read(R.currentCount), take()]).toEqual([0, -1])
  })

  it('TSC deadline', () => {
    const { controller, write, read, clock, take, eoi } = start()
    write(R.lvtTimer, 0x40040)
    write(R.initialCount, 5) // ignored
    expect(read(R.initialCount)).toBe(0)
    controller.writeMsr(0, 0x6e0, 5000n)
    expect(controller.readMsr(0, 0x6e0)).toBe(5000n)
    clock.advanceNs(4999)
    expect(take()).toBe(-1)
    clock.advanceNs(1)
    expect(take()).toBe(0x40)
    expect(controller.readMsr(0, 0x6e0)).toBe(0n)
    eoi()
    controller.writeMsr(0, 0x6e0, 10n) // past: at once
    expect(take()).toBe(0x40)
    eoi()
    controller.writeMsr(0, 0x6e0, 2n ** 64n - 1n)
    expect(clock.nextDeadline()).toBe(Infinity)
    controller.writeMsr(0, 0x6e0, 9000n)
    write(R.lvtTimer, 0x40) // leaving the mode disarms
    clock.advanceNs(1e6)
    expect([take(), controller.readMsr(0, 0x6e0)]).toEqual([-1, 0n])
  })

  it('gives a guest time to run however short its period', () => {
    const { write, clock, controller, take, eoi } = start()
    write(R.divideConfiguration, 0xb)
    write(R.lvtTimer, 0x20040)
    write(R.initialCount, 1)
    let count = 0
    for (let step = 0; step < 1000; step++) {
      clock.advanceNs(1000)
      if (controller.hasPending(0)) {
        count++
        take()
        eoi()
      }
    }
    expect(count).toBe(20)
  })
})

describe('x2APIC', () => {
  it.each([
    { from: 0x900n, to: 0xd00n, allowed: true },
    { from: 0xd00n, to: 0x900n, allowed: false },
    { from: 0xd00n, to: 0x100n, allowed: true },
    { from: 0x100n, to: 0xd00n, allowed: false },
    { from: 0x900n, to: 0x500n, allowed: false },
    { from: 0x900n, to: 0x901n, allowed: false },
  ])('IA32_APIC_BASE $from to $to: $allowed', ({ from, to, allowed }) => {
    const { controller } = start()
    const base = BigInt(APIC)
    controller.writeMsr(0, 0x1b, base | from)
    expect(controller.writeMsr(0, 0x1b, base | to)).toBe(allowed)
    expect(controller.readMsr(0, 0x1b)).toBe(base | (allowed ? to : from))
  })

  it('has its registers in MSRs and none in memory', () => {
    const { controller, x2apic, readMmio } = start(20)
    expect(controller.readMsr(17, 0x802)).toBeUndefined()
    expect(controller.writeMsr(17, 0x808, 0n)).toBe(false)
    x2apic(17)
    expect(controller.readMsr(17, 0x802)).toBe(17n)
    expect(controller.readMsr(17, 0x80d)).toBe(0x10002n)
    expect(controller.readMsr(17, 0x80f)).toBe(0x1ffn)
    controller.hasPending(17)
    expect(readMmio(APIC + 0x20)).toBe(0xffffffff)
  })

  it.each([
    { msr: 0x80b, value: 0n, allowed: true },
    { msr: 0x80b, value: 1n, allowed: false },
    { msr: 0x802, value: 0n, allowed: false },
    { msr: 0x808, value: 0x100n, allowed: false },
    { msr: 0x80e, value: 0n, allowed: false },
    { msr: 0x828, value: 1n, allowed: false },
    { msr: 0x830, value: 0x1000n, allowed: false },
    { msr: 0x83f, value: 0x41n, allowed: true },
    { msr: 0x8ff, value: 0n, allowed: false },
  ])('WRMSR $msr of $value: $allowed', ({ msr, value, allowed }) => {
    const { controller, x2apic } = start()
    x2apic(0)
    expect(controller.writeMsr(0, msr, value)).toBe(allowed)
    expect(controller.readMsr(0, 0x83f)).toBeUndefined()
  })

  it.each([
    { name: 'physical', command: 0x1_0000_4055n, to: [1] },
    { name: 'logical cluster 0', command: 0x6_0000_4855n, to: [1, 2] },
    { name: 'broadcast', command: 0xffff_ffff_0000_4055n, to: [0, 1, 2] },
  ])('sends by one write: $name', ({ command, to }) => {
    const { controller, x2apic } = start(3)
    for (const vcpu of [0, 1, 2]) x2apic(vcpu)
    expect(controller.writeMsr(0, 0x830, command)).toBe(true)
    expect([0, 1, 2].filter((vcpu) => controller.hasPending(vcpu))).toEqual(to)
    expect(controller.readMsr(0, 0x830)).toBe(command)
  })
})

describe('I/O APIC', () => {
  it('identifies itself', () => {
    const { writeMmio, readMmio } = start()
    writeMmio(IO_APIC, 1)
    expect(readMmio(IO_APIC + 0x10)).toBe(0x170020)
  })

  it('an edge is one interrupt, and lost while masked', () => {
    const { controller, redirect, take, eoi } = start()
    const line = controller.line(4)!
    line.pulse()
    redirect(4, 0x44)
    expect(take()).toBe(-1)
    line.raise()
    expect(take()).toBe(0x44)
    eoi()
    expect(take()).toBe(-1)
  })

  it('a level comes again after each EOI until it is lowered', () => {
    const { controller, redirect, entry, take, eoi } = start()
    const [one, other] = [controller.line(17)!, controller.line(17)!]
    redirect(17, 0x8061)
    one.raise()
    other.raise()
    expect(take()).toBe(0x61)
    expect(entry(17)).toBe(0xc061)
    one.lower()
    eoi()
    expect(take()).toBe(0x61)
    other.lower()
    eoi()
    expect([take(), entry(17)]).toEqual([-1, 0x8061])
  })

  it('a level that waits while masked comes when unmasked', () => {
    const { controller, redirect, take } = start()
    redirect(17, 0x18061)
    controller.line(17)!.raise()
    expect(take()).toBe(-1)
    redirect(17, 0x8061)
    expect(take()).toBe(0x61)
  })

  it('ends by its own EOI register, and by a switch to edge', () => {
    const { controller, redirect, entry, take, eoi, write, writeMmio } = start()
    redirect(17, 0x8061)
    const line = controller.line(17)!
    line.raise()
    write(R.spuriousVector, 0x11ff) // suppress the broadcast
    take()
    eoi()
    expect(entry(17)).toBe(0xc061)
    writeMmio(IO_APIC + 0x40, 0x61)
    expect(take()).toBe(0x61)
    redirect(17, 0x10061)
    redirect(17, 0x18061)
    expect(entry(17)).toBe(0x18061)
  })

  it('routes to another processor, and the timer by pin 2', () => {
    const { controller, redirect, take } = start()
    redirect(2, 0x30, 0x01000000)
    controller.line(2)!.pulse()
    expect([take(0), take(1)]).toEqual([-1, 0x30])
  })
})

describe('an IOMMU that remaps interrupts', () => {
  it.each([
    ['edge, physical', 0x44, 0x0300_0000, [0xfee0_3000, 0x4044]],
    ['level, logical, lowest priority', 0x8961, 0x0500_0000, [0xfee0_5004, 0xc161]],
    // Bits 63:49 and 11 are the handle, bit 48 says so; the vector is what the EOI register names.
    ['a handle', 0x8011, 0x0025_0000, [0xfee0_0250, 0xc011]],
    ['a handle of 16 bits', 0x0811, 0xffff_0000, [0xfeef_fff4, 0x4011]],
  ])("gets the I/O APIC's messages as they were programmed: %s", (_, low, high, message) => {
    const sent: number[][] = []
    const send = (...[address, data, requester]: number[]): void => void sent.push([address!, data!, requester!])
    const { controller, redirect } = start(1, { ioApicMessages: { send } })
    redirect(17, low, high)
    controller.line(17)!.raise()
    expect(sent).toEqual([[...message, 0xf0f8]])
  })

  it.each([
    ['one of 255', 3, 0xfee0_0000, 3],
    ['a cluster of x2APICs', 17, 0xfee0_0004, 0x1_0002],
    ['none that the address could name', -1, 0xfee0_3000, 0x1_0003],
  ])('delivers by 32 bits of destination: %s', (_, vcpu, address, destination) => {
    const { controller, take, x2apic } = start(20)
    for (let each = 0; each < 20; each++) x2apic(each)
    controller.messages.send(address, 0x4055, undefined, destination)
    const taken = Array.from({ length: 20 }, (__, each) => take(each)).findIndex((vector) => vector === 0x55)
    expect(taken).toBe(vcpu)
  })
})

describe('EOI assist', () => {
  it('offers, notices, withdraws', () => {
    const { controller, take, read, eoi } = start()
    let flag = false
    controller.setEoiAssist({
      offer: () => (flag = true),
      taken: () => !flag,
      withdraw: () => void (flag = false),
    })
    const send = (vector: number): void => controller.messages.send(APIC, vector)
    send(0x41)
    expect([take(), flag]).toEqual([0x41, true])
    expect(read(R.inService + 0x20)).toBe(2)
    flag = false // the guest ends it
    send(0x42)
    expect([take(), flag]).toEqual([0x42, true])
    send(0x51) // another arrives before the guest ends it
    expect(flag).toBe(false)
    expect(take()).toBe(0x51)
    eoi()
    expect(read(R.inService + 0x20)).toBe(4)
    eoi()
    expect(read(R.inService + 0x20)).toBe(0)
  })

  it('is not offered for a level, nor while something waits', () => {
    const { controller, take, redirect } = start()
    let offers = 0
    controller.setEoiAssist({ offer: () => (offers++, true), taken: () => false, withdraw: () => {} })
    redirect(17, 0x8061)
    controller.line(17)!.raise()
    take()
    controller.messages.send(APIC, 0x71)
    controller.messages.send(APIC, 0x72)
    take()
    expect(offers).toBe(0)
  })
})

describe('the whole', () => {
  it('saves and restores', () => {
    const first = start()
    first.redirect(17, 0x8061)
    first.controller.line(17)!.raise()
    first.take()
    first.controller.messages.send(APIC, 0x71)
    first.write(R.lvtTimer, 0x20040)
    first.write(R.initialCount, 1e6)
    const second = start()
    second.controller.restore(structuredClone(first.controller.save()))
    expect(structuredClone(second.controller.save())).toEqual(first.controller.save())
    expect(second.take()).toBe(0x71)
    second.eoi()
    second.eoi()
    expect(second.take()).toBe(0x61)
    second.controller.reset()
    expect(second.controller.hasPending(0)).toBe(false)
    expect(second.clock.nextDeadline()).toBe(Infinity)
  })
})
