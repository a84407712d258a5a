/** Xen's interface for guests with memory and interrupts of their own, by what the guest finds in its registers and memory. */

import { describe, expect, it } from 'vitest'
import { CONSOLE_PAGE, hvmBench, STORE_PAGE } from '../testing/hvm-bench.ts'

const SELF = 0x7ff0
const MEMORY_OP = 12
const XEN_VERSION = 17
const GRANT_TABLE_OP = 20
const VCPU_OP = 24
const SCHED_OP = 29
const HVM_OP = 34
const ADD_TO_PHYSMAP = 7
const [SET, GET, SET_UPCALL_VECTOR] = [0, 1, 23]
const at = 0x1000

type Bench = ReturnType<typeof hvmBench>
const show = (bench: Bench, space: number, index: number, frame: number | bigint): number =>
  bench.call(
    MEMORY_OP,
    ADD_TO_PHYSMAP,
    bench.put(at, (view) => {
      view.setUint16(0, SELF, true)
      view.setUint32(4, space, true)
      view.setBigUint64(8, BigInt(index), true)
      view.setBigUint64(16, BigInt(frame), true)
    }),
  )
const parameter = (bench: Bench, index: number): [result: number, value: bigint] => {
  bench.put(at, (view) => {
    view.setUint16(0, SELF, true)
    view.setUint32(4, index, true)
  })
  const result = bench.call(HVM_OP, GET, at)
  return [result, bench.guestMemory.readU64(at + 8)!]
}

describe('CPUID', () => {
  it('names Xen 4.17, the MSR for the hypercall page, and each vCPU', () => {
    const { cpuid } = hvmBench()
    expect(cpuid(0x4000_0000)).toEqual({ eax: 0x4000_0004, ebx: 0x566e_6558, ecx: 0x6558_4d4d, edx: 0x4d4d_566e })
    expect(cpuid(0x4000_0001).eax).toBe(0x0004_0011)
    expect(cpuid(0x4000_0002)).toMatchObject({ eax: 1, ebx: 0x4000_0000 })
    expect(cpuid(0x4000_0004, 1)).toMatchObject({ eax: 8 | 16 | 64, ebx: 1, ecx: 1 })
    expect(cpuid(1).ecx >>> 31).toBe(1)
  })
})

describe('the hypercall page', () => {
  it('makes call n at 32 n, and has no return from a bounce', () => {
    const { abi, guestMemory } = hvmBench()
    expect(abi.writeMsr(0, 0x4000_0000, 0x2000n)).toBe(true)
    const code = new Uint8Array(9)
    guestMemory.readBytes(0x2000 + 17 * 32, code)
    expect([...code]).toEqual([0xb8, 17, 0, 0, 0, 0x0f, 0x01, 0xc1, 0xc3])
    guestMemory.readBytes(0x2000 + 23 * 32, code)
    expect([...code.subarray(0, 2)]).toEqual([0x0f, 0x0b])
  })

  it.each([
    ['another page of entries than the one there is', 0x2001n],
    ['an address without memory', 0x100_0000n],
    ['no address', 1n << 60n],
  ])('is refused for %s', (_what, value) => {
    expect(hvmBench().abi.writeMsr(0, 0x4000_0000, value)).toBe(false)
  })
})

describe('a call', () => {
  it.each([
    ['user code', { cpl: 3 }, -1],
    ['32-bit code, whose structures are others', { longMode: false }, -38],
  ])('of %s is refused', (_what, mode, result) => {
    const { callWith, registersOf } = hvmBench()
    const registers = registersOf(XEN_VERSION, [0])
    expect(callWith(registers, mode)).toBe('done')
    expect(BigInt.asIntN(64, registers.rax)).toBe(BigInt(result))
  })

  it('finds the version and the features of translated guests', () => {
    const { call, put, guestMemory } = hvmBench()
    expect(call(XEN_VERSION, 0)).toBe(0x0004_0011)
    expect(
      call(
        XEN_VERSION,
        6,
        put(at, () => {}),
      ),
    ).toBe(0)
    expect(guestMemory.readU32(at + 4)).toBe(0b11_0000_0101)
  })

  it.each([
    [1, 'mmu_update'],
    [2, 'set_gdt'],
    [14, 'update_va_mapping'],
    [23, 'iret'],
    [26, 'mmuext_op'],
    [30, 'callback_op'],
    [63, 'none'],
  ])('%i (%s) is not there', (number) => {
    expect(hvmBench().call(number)).toBe(-38)
  })
  it('XSA-109: table updates are of paravirtual guests alone, in a multicall, too', () => {
    const { call, put, guestMemory } = hvmBench()
    put(at, (view) => view.setBigUint64(0, 1n, true))
    expect([call(13, at, 1), guestMemory.readU64(at + 8)]).toEqual([0, BigInt.asUintN(64, -38n)])
  })

  it('with an address that is not mapped gives EFAULT', () => {
    expect(hvmBench().call(XEN_VERSION, 6, 0x10_0000)).toBe(-14)
  })

  it('asks the vCPU to sleep, to yield, and the machine to end', () => {
    const { callWith, registersOf, ended, put } = hvmBench()
    expect(callWith(registersOf(SCHED_OP, [1]))).toBe('halt')
    expect(callWith(registersOf(SCHED_OP, [0]))).toBe('yield')
    expect(callWith(registersOf(SCHED_OP, [2, put(at, (view) => view.setUint32(0, 1, true))]))).toBe('halt')
    expect(ended).toEqual(['reset'])
  })

  it('that starts or stops vCPUs is not there: their local APICs do it', () => {
    const { call } = hvmBench()
    expect([0, 1, 2, 3, 11].map((operation) => call(VCPU_OP, operation, 1, at))).toEqual([-38, -38, -38, -38, -38])
  })
})

describe('parameters', () => {
  it('say where the rings are', () => {
    const bench = hvmBench()
    expect([17, 18, 1, 2].map((index) => parameter(bench, index))).toEqual([
      [0, BigInt(CONSOLE_PAGE)],
      [0, 1n],
      [0, BigInt(STORE_PAGE)],
      [0, 2n],
    ])
    expect(bench.connected).toEqual([CONSOLE_PAGE * 4096, STORE_PAGE * 4096])
  })
  it('can be set by the guest where they are its own, and are forgotten at reset', () => {
    const bench = hvmBench()
    const set = (index: number, domain = SELF): number =>
      bench.call(
        HVM_OP,
        SET,
        bench.put(at, (view) => {
          view.setUint16(0, domain, true)
          view.setUint32(4, index, true)
          view.setBigUint64(8, 0x200_0000_0000_00f3n, true)
        }),
      )
    expect([set(0), set(17), set(39), set(0, 5)]).toEqual([0, -1, -22, -3])
    expect(parameter(bench, 0)).toEqual([0, 0x200_0000_0000_00f3n])
    bench.abi.reset()
    expect(parameter(bench, 0)).toEqual([0, 0n])
  })
  it.each<[what: string, value: bigint, result: number, callbacks: number[]]>([
    ['a vector for all vCPUs', (2n << 56n) | 0xf3n, 0, [0xf3]],
    ["the last that is an exception's", (2n << 56n) | 15n, -22, []],
    ['the first that is none', (2n << 56n) | 16n, 0, [16]],
    ['no vector', 2n << 56n, 0, [0]],
    ['nothing', 0n, 0, [0]],
    ['a line', 9n, 0, [-9]],
    ['a line that there is none of', 16n, -22, []],
    ['a pin of the platform device', (1n << 56n) | 0x0802n, 0, [2]],
    ['a pin of another device', (1n << 56n) | 0x1000n, -22, []],
    ['a pin on another bus', (1n << 56n) | 0x1_0800n, -22, []],
    ['a pin of another PCI segment', (1n << 56n) | (1n << 32n) | 0x0800n, -22, []],
    ['a way that there is none of', (3n << 56n) | 0xf3n, -22, []],
  ])('choose how events are told: %s', (_what, value, result, told) => {
    const { call, put, callbacks } = hvmBench()
    const set = (view: DataView): void => {
      view.setUint16(0, SELF, true)
      view.setBigUint64(8, value, true)
    }
    expect([call(HVM_OP, SET, put(at, set)), callbacks]).toEqual([result, told])
  })
  it('choose a vector for events of one vCPU', () => {
    const { call, put, vectors } = hvmBench()
    const vector = (vcpu: number, value: number): number =>
      call(
        HVM_OP,
        SET_UPCALL_VECTOR,
        put(at, (view) => {
          view.setUint32(0, vcpu, true)
          view.setUint8(4, value)
        }),
      )
    expect([vector(1, 0xf3), vector(0, 15), vector(2, 0xf3)]).toEqual([0, -22, -2])
    expect(vectors).toEqual([[1, 0xf3]])
  })
})

describe("the hypervisor's pages", () => {
  it('are seen where the guest asks for them: in its memory, or where it has none', () => {
    const bench = hvmBench()
    const { guestMemory, abi, hostMemory } = bench
    for (const frame of [3, 0x10_0000]) {
      expect(show(bench, 0, 0, frame)).toBe(0)
      hostMemory.bytes[abi.domain.sharedInfo + 0xc04] = frame & 0xff
      expect(guestMemory.readU8(frame * 4096 + 0xc04)).toBe(frame & 0xff)
      guestMemory.writeU8(frame * 4096, 7)
      expect(hostMemory.bytes[abi.domain.vcpuInfo(0)]).toBe(7)
    }
    // The first is ordinary memory again.
    hostMemory.bytes[abi.domain.sharedInfo + 0xc04] = 0x55
    expect(guestMemory.readU8(3 * 4096 + 0xc04)).toBe(3)
  })

  it('of grants have the entries of the rings', () => {
    const bench = hvmBench()
    const { guestMemory } = bench
    expect(show(bench, 1, 0, 0x20_0000)).toBe(0)
    expect([0, 8].map((entry) => guestMemory.readU64(0x2_0000_0000 + entry))).toEqual([
      (BigInt(CONSOLE_PAGE) << 32n) | 1n,
      (BigInt(STORE_PAGE) << 32n) | 1n,
    ])
    expect(
      bench.call(
        GRANT_TABLE_OP,
        6,
        bench.put(at, (view) => view.setUint16(0, SELF, true)),
        1,
      ),
    ).toBe(0)
    expect([guestMemory.readU32(at + 4), guestMemory.readU32(at + 8)]).toEqual([1, 64])
  })

  it('of grants have version 1 alone', () => {
    const { call, put } = hvmBench()
    const set = (version: number): number =>
      call(
        GRANT_TABLE_OP,
        8,
        put(at, (view) => view.setUint32(0, version, true)),
        1,
      )
    expect([set(1), set(2), set(3)]).toEqual([0, -38, -22])
  })

  it.each<[what: string, space: number, index: number, frame: bigint, result: number]>([
    ['a space that is not there', 5, 0, 3n, -38],
    ['a frame of the grant table beyond its most', 1, 64, 3n, -22],
    ['a frame without address', 0, 0, 1n << 40n, -22],
    ['a frame that no number is', 0, 0, (1n << 64n) - 1n, -22],
  ])('are refused for %s', (_what, space, index, frame, result) => {
    const bench = hvmBench()
    const before = bench.abi.domain.sharedInfo
    expect(show(bench, space, index, frame)).toBe(result)
    expect(bench.abi.domain.sharedInfo).toBe(before)
  })

  it('stay in place until reset, and leave nothing behind', () => {
    const bench = hvmBench()
    const { frames } = bench
    show(bench, 0, 0, 3)
    show(bench, 1, 0, 0x20_0000)
    expect([frames.state(3 * 4096), frames.state(0x2_0000_0000)]).toMatchObject([{ pins: 1 }, { pins: 1 }])
    bench.abi.reset()
    expect([frames.state(3 * 4096), frames.state(0x2_0000_0000)]).toMatchObject([{ pins: 0 }, undefined])
    expect(frames.pinnedFrames).toBe(2)
    expect(show(bench, 0, 0, 3)).toBe(0)
  })

  it('go back to the guest when it has ended: the hypervisor holds none', () => {
    const bench = hvmBench()
    const { abi, frames, metrics } = bench
    show(bench, 0, 0, 3)
    show(bench, 1, 0, 0x20_0000)
    abi.ended()
    expect([frames.pinnedFrames, metrics.counter('leaks', '').value]).toEqual([0, 0])
    show(bench, 0, 0, 3)
    frames.pin(3 * 4096)
    abi.ended()
    expect(frames.pinnedFrames).toBe(1)
  })

  it('hold vcpu_info once, at a multiple of 8, inside one page', () => {
    const bench = hvmBench()
    const register = (frame: number, offset: number): number =>
      bench.call(
        VCPU_OP,
        10,
        0,
        bench.put(at, (view) => {
          view.setBigUint64(0, BigInt(frame), true)
          view.setUint32(8, offset, true)
        }),
      )
    expect([register(5, 4), register(5, 4096 - 56), register(99, 0), register(5, 4096 - 64), register(5, 0)]).toEqual([
      -22, -22, -22, 0, -22,
    ])
    expect(bench.abi.domain.vcpuInfo(0)).toBe(bench.frames.peek(5 * 4096 + 4096 - 64))
  })
})

describe('memory', () => {
  const reservation = (bench: Bench, operation: number, frames: readonly number[], order = 0): number => {
    frames.forEach((frame, n) => bench.guestMemory.writeU64(0x2000 + n * 8, BigInt(frame)))
    return bench.call(
      MEMORY_OP,
      operation,
      bench.put(at, (view) => {
        view.setBigUint64(0, 0x2000n, true)
        view.setBigUint64(8, BigInt(frames.length), true)
        view.setUint32(16, order, true)
        view.setUint16(24, SELF, true)
      }),
    )
  }
  it('given back reads as zeros, and can be had again', () => {
    const bench = hvmBench()
    bench.guestMemory.writeU8(6 * 4096, 9)
    expect(reservation(bench, 1, [6])).toBe(1)
    expect(bench.guestMemory.readU8(6 * 4096)).toBe(0)
    expect(reservation(bench, 6, [6])).toBe(1)
  })
  it('that holds a page of the hypervisor, or does not exist, is not given back', () => {
    const bench = hvmBench()
    expect(reservation(bench, 1, [6, CONSOLE_PAGE, 7])).toBe(1)
    expect(reservation(bench, 1, [0x999])).toBe(0)
    expect(reservation(bench, 6, [6, 0x999])).toBe(1)
  })
  it('XSA-31, XSA-158: comes in single frames, whatever order is asked for', () => {
    const bench = hvmBench()
    expect([1, 9, 63, 0xffff_ffff].map((order) => reservation(bench, 6, [6], order))).toEqual([0, 0, 0, 0])
  })
})
