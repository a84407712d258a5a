/** Calls of a paravirtual guest one by one: what its vCPU is asked, what comes back, and both sides of each bound. */

import { describe, expect, it } from 'vitest'
import { pvBench, SELF } from '../testing/pv-bench.ts'

const [EPERM, ENOENT, ESRCH, EFAULT, EINVAL, ENOSYS, ENODATA, ETIME] = [-1, -2, -3, -14, -22, -38, -61, -62]
const AT = 0x800
const NOWHERE = 1n << 40n
type Bench = ReturnType<typeof pvBench>

/** A structure of 32-bit words in memory. */
function words(bench: Bench, ...values: readonly number[]): number {
  values.forEach((value, n) => bench.memory.setUint32(AT + n * 4, value, true))
  return AT
}

describe('the kernel’s entry points', () => {
  const SET_TRAP_TABLE = 0
  it('are a table that ends with address 0', () => {
    const bench = pvBench()
    for (const [n, [vector, flags, address]] of [
      [3, 3, 0x1000n],
      [14, 4, 0x2000n],
      [2, 0, 0n],
      [5, 0, 0x3000n],
    ].entries() as Iterable<[number, [number, number, bigint]]>) {
      bench.memory.setUint8(AT + n * 16, vector)
      bench.memory.setUint8(AT + n * 16 + 1, flags)
      bench.memory.setBigUint64(AT + n * 16 + 8, address, true)
    }
    expect([bench.call(SET_TRAP_TABLE, AT), bench.pvAsked]).toEqual([
      0,
      [
        ['setTrap', { vector: 3, address: 0x1000n, privilege: 3, masksEvents: false }],
        ['setTrap', { vector: 14, address: 0x2000n, privilege: 0, masksEvents: true }],
      ],
    ])
  })
  it('are cleared without a table, and left where the table cannot be read', () => {
    const bench = pvBench()
    expect([bench.call(SET_TRAP_TABLE, NOWHERE), bench.pvAsked]).toEqual([EFAULT, []])
    expect([bench.call(SET_TRAP_TABLE, 0), bench.pvAsked]).toEqual([0, [['clearTraps']]])
  })
  it('are 256 at most', () => {
    const bench = pvBench()
    for (let n = 0; n < 300; n++) bench.memory.setBigUint64(AT + n * 16 + 8, 1n, true)
    expect([bench.call(SET_TRAP_TABLE, AT), bench.pvAsked.length]).toEqual([0, 256])
  })

  const CALLBACK_OP = 30
  const register = (bench: Bench, kind: number, flags = 0): number | 'again' => {
    words(bench, kind | (flags << 16), 0, 0x5000, 0)
    return bench.call(CALLBACK_OP, 0, AT)
  }
  it.each([
    [0, 'event'],
    [1, 'failsafe'],
    [2, 'syscall'],
    [4, 'nmi'],
    [5, 'sysenter'],
    [7, 'syscall32'],
  ])('callback %i is %s', (kind, name) => {
    const bench = pvBench()
    expect([register(bench, kind, 1), bench.pvAsked]).toEqual([0, [['setCallback', name, 0x5000n, true]]])
  })
  it.each([3, 6, 8, 0xffff])('callback %i is none', (kind) => {
    const bench = pvBench()
    expect([register(bench, kind), bench.pvAsked]).toEqual([ENOSYS, []])
  })
  it('are unregistered but for those without which no event could come', () => {
    const bench = pvBench()
    const results = [0, 1, 2, 4].map((kind) => bench.call(CALLBACK_OP, 1, words(bench, kind)))
    expect([results, bench.pvAsked.map(([, name, address]) => [name, address])]).toEqual([
      [EINVAL, EINVAL, 0, 0],
      [
        ['syscall', 0n],
        ['nmi', 0n],
      ],
    ])
    expect([bench.call(CALLBACK_OP, 2, AT), bench.call(CALLBACK_OP, 0, NOWHERE)]).toEqual([ENOSYS, EFAULT])
  })
  it('are set three at a time by the older call, and of NMIs by one of its own', () => {
    const bench = pvBench()
    bench.call(4, 1, 2, 3)
    words(bench, 9, 0)
    expect([bench.call(28, 0, AT), bench.call(28, 1), bench.call(28, 2), bench.call(28, 0, NOWHERE)]).toEqual([
      ...[0, 0, ENOSYS, EFAULT],
    ])
    expect(bench.pvAsked.map(([, name, address]) => [name, address])).toEqual([
      ...[
        ['event', 1n],
        ['failsafe', 2n],
        ['syscall', 3n],
        ['nmi', 9n],
        ['nmi', 0n],
      ],
    ])
  })
})

describe('what a context switch calls', () => {
  it.each<[what: string, call: [number, ...(number | bigint)[]], asked: unknown[]]>([
    ['the stack', [3, 0xf_e02b, 0x8000n], ['setKernelStack', 0xe02b, 0x8000n]],
    ['TS on', [5, 2], ['setTaskSwitched', true]],
    ['TS off', [5, 0], ['setTaskSwitched', false]],
    ['FS', [25, 0, 0x1234n], ['setSegmentBase', 'fs', 0x1234n]],
    ['GS of programs', [25, 1, 5n], ['setSegmentBase', 'gsUser', 5n]],
    ['GS of the kernel', [25, 2, 6n], ['setSegmentBase', 'gsKernel', 6n]],
    ['a selector for GS', [25, 3, 0x5_002bn], ['loadUserGs', 0x2b]],
    ['a breakpoint', [8, 1, 0x4000n], ['setDebugRegister', 1, 0x4000n]],
  ])('%s', (_what, [number, ...args], asked) => {
    const bench = pvBench()
    expect([bench.call(number, ...args), bench.pvAsked]).toEqual([0, [asked]])
  })
  it('a base that is refused, and one that is none', () => {
    const bench = pvBench()
    bench.refuses('setSegmentBase')
    expect([bench.call(25, 0, 1n << 47n), bench.call(25, 4, 0n)]).toEqual([EINVAL, EINVAL])
  })
  it('debug registers are eight', () => {
    const bench = pvBench()
    expect([bench.call(9, 7), bench.call(9, 8), bench.call(9, 0xffff_ffff)]).toEqual([0, EINVAL, EINVAL])
  })
})

describe('descriptor tables', () => {
  it('are of 14 pages at most, each frame named', () => {
    const bench = pvBench()
    for (let n = 0; n < 14; n++) bench.memory.setBigUint64(AT + n * 8, BigInt(20 + n), true)
    expect([bench.call(2, AT, 7169), bench.asked]).toEqual([EINVAL, []])
    expect(bench.call(2, AT, 513)).toBe(0)
    expect([bench.asked, bench.pvAsked]).toEqual([
      [['setDescriptorFrames', 0, [20, 21], 513]],
      [['descriptorsChanged']],
    ])
    expect(bench.call(2, NOWHERE, 1)).toBe(EFAULT)
  })
  it('that are refused change no vCPU', () => {
    const bench = pvBench()
    bench.answers.setDescriptorFrames = ['invalid']
    bench.answers.writeDescriptor = ['invalid']
    expect([bench.call(2, AT, 1), bench.call(10, 0x5008, 0n), bench.pvAsked]).toEqual([EINVAL, EINVAL, []])
  })
  it('that are shared change on all vCPUs', () => {
    const bench = pvBench()
    expect([bench.call(10, 0x5008, 0x00cf_9a00_0000_ffffn), bench.pvAsked.length]).toEqual([0, 2])
    expect(bench.asked).toEqual([['writeDescriptor', 0x5008, 0xffff, 0x00cf_9a00]])
  })
})

describe('ports', () => {
  const [SET_IOPL, SET_BITMAP] = [6, 7]
  it.each([
    [0, 0],
    [3, 0],
    [4, EINVAL],
    [0xffff_ffff, EINVAL],
  ])('of level %i', (level, result) => {
    const bench = pvBench()
    expect(bench.call(33, SET_IOPL, words(bench, level))).toBe(result)
    expect(bench.pvAsked).toEqual(result === 0 ? [['setIoPrivilege', level]] : [])
  })
  it.each([
    [65_536, 0],
    [65_537, EINVAL],
  ])('by a bitmap of %i', (ports, result) => {
    const bench = pvBench()
    expect(bench.call(33, SET_BITMAP, words(bench, 0x9000, 0, ports))).toBe(result)
    expect(bench.pvAsked).toEqual(result === 0 ? [['setIoBitmap', 0x9000n, ports]] : [])
  })
  it('are given to no domain', () => {
    const bench = pvBench()
    expect([5, 13, 21].map((operation) => bench.call(33, operation, AT))).toEqual([ENOSYS, ENOSYS, ENOSYS])
    expect(bench.call(33, SET_IOPL, NOWHERE)).toBe(EFAULT)
  })
})

describe('vCPUs', () => {
  const VCPU_OP = 24
  const [UP, DOWN, IS_UP, GET_RUN_STATE, REGISTER_RUN_STATE, SET_PERIODIC] = [1, 2, 3, 4, 5, 6]
  const [SET_SINGLE, STOP_SINGLE, SEND_NMI, REGISTER_TIME] = [8, 9, 11, 13]

  it('are up or not, and go up when they have a context', () => {
    const bench = pvBench()
    expect([bench.call(VCPU_OP, IS_UP, 1), bench.call(VCPU_OP, UP, 1), bench.call(VCPU_OP, UP, 0)]).toEqual([
      0,
      EINVAL,
      0,
    ])
    expect([bench.call(VCPU_OP, DOWN, 0), bench.pvAsked]).toEqual([
      0,
      [
        ['setUp', true],
        ['setUp', false],
      ],
    ])
  })
  it.each([UP, DOWN, IS_UP, SET_SINGLE, 99])('beyond the last are none: operation %i', (operation) => {
    expect(pvBench().call(VCPU_OP, operation, 2, AT)).toBe(ENOENT)
  })
  it('have a single timer each, which only they set and stop', () => {
    const bench = pvBench()
    bench.clock.advanceNs(1000)
    const set = (vcpu: number, deadline: bigint, flags: number): number | 'again' => {
      bench.memory.setBigUint64(AT, deadline, true)
      bench.memory.setUint32(AT + 8, flags, true)
      return bench.call(VCPU_OP, SET_SINGLE, vcpu, AT)
    }
    expect([set(1, 5000n, 0), bench.call(VCPU_OP, STOP_SINGLE, 1)]).toEqual([EINVAL, EINVAL])
    // A time that is past fires at once, unless it was to be in the future.
    expect([set(0, 999n, 1), bench.virtual.length]).toEqual([ETIME, 0])
    expect([set(0, 999n, 0), bench.virtual]).toEqual([0, [[0, 0]]])
    set(0, 5000n, 1)
    bench.clock.advanceNs(3999)
    expect(bench.virtual).toHaveLength(1)
    bench.clock.advanceNs(1)
    expect(bench.virtual).toHaveLength(2)
    set(0, 9000n, 1)
    bench.call(VCPU_OP, STOP_SINGLE, 0)
    bench.clock.advanceNs(10_000)
    expect(bench.virtual).toHaveLength(2)
  })
  it.each([
    [999_999n, EINVAL],
    [1_000_000n, 0],
  ])('tick at most every millisecond: %i ns', (period, result) => {
    const bench = pvBench()
    bench.memory.setBigUint64(AT, period, true)
    expect(bench.call(VCPU_OP, SET_PERIODIC, 0, AT)).toBe(result)
    bench.clock.advanceNs(3_000_000)
    expect(bench.virtual).toHaveLength(result === 0 ? 3 : 0)
  })
  it('have run since they were made', () => {
    const bench = pvBench()
    bench.clock.advanceNs(700)
    expect(bench.call(VCPU_OP, GET_RUN_STATE, 1, AT + 64)).toBe(0)
    expect([bench.memory.getUint32(AT + 64, true), bench.memory.getBigUint64(AT + 80, true)]).toEqual([0, 700n])
    bench.memory.setBigUint64(AT, BigInt(AT + 128), true)
    expect(bench.call(VCPU_OP, REGISTER_RUN_STATE, 0, AT)).toBe(0)
    expect(bench.memory.getBigUint64(AT + 144, true)).toBe(700n)
    bench.memory.setBigUint64(AT, NOWHERE, true)
    expect([REGISTER_RUN_STATE, REGISTER_TIME].map((operation) => bench.call(VCPU_OP, operation, 0, AT))).toEqual([
      ...[EFAULT, EFAULT],
    ])
  })
  it('get NMIs', () => {
    const bench = pvBench()
    expect([bench.call(VCPU_OP, SEND_NMI, 1), bench.pvAsked, bench.woken]).toEqual([0, [['sendNmi']], [1]])
  })
  it('know their time by a copy of their clock', () => {
    const bench = pvBench()
    bench.abi.domain.begin()
    bench.memory.setBigUint64(AT, BigInt(AT + 64), true)
    expect(bench.call(VCPU_OP, REGISTER_TIME, 0, AT)).toBe(0)
    const at = AT + 64
    const [version, multiplier, shift] = [
      bench.memory.getUint32(at, true),
      bench.memory.getUint32(at + 24, true),
      bench.memory.getInt8(at + 28),
    ]
    // Nanoseconds of a second's ticks.
    const ticks = BigInt(bench.clock.tscHz)
    const ns = ((shift < 0 ? ticks >> BigInt(-shift) : ticks << BigInt(shift)) * BigInt(multiplier)) >> 32n
    expect([version % 2, Number(ns) / 1e9]).toEqual([0, expect.closeTo(1, 8)])
  })
})

describe('scheduling', () => {
  const SCHED_OP = 29
  it('yields, and blocks unless an event waits; events are unmasked either way', () => {
    const bench = pvBench()
    const { abi, hostMemory } = bench
    const info = abi.domain.vcpuInfo(0)
    hostMemory.bytes[info + 1] = 1
    expect([bench.call(SCHED_OP, 0), bench.call(SCHED_OP, 1), hostMemory.bytes[info + 1]]).toEqual([0, 0, 0])
    hostMemory.bytes[info] = 1
    bench.call(SCHED_OP, 1)
    expect(bench.pvAsked).toEqual([['yield'], ['sleep', false]])
  })
  it.each([
    [0, 'off'],
    [1, 'reset'],
    [3, 'crashed'],
  ])('shuts down for reason %i: %s', (reason, end) => {
    const bench = pvBench()
    expect([bench.call(SCHED_OP, 2, words(bench, reason)), bench.ended, bench.pvAsked]).toEqual([
      ...[0, [end], [['sleep', false]]],
    ])
  })
  it.each([2, 4, 5, 0xffff_ffff])('does not shut down for reason %i', (reason) => {
    const bench = pvBench()
    expect([bench.call(SCHED_OP, 2, words(bench, reason)), bench.ended]).toEqual([EINVAL, []])
  })
  it('polls 128 ports at most', () => {
    const bench = pvBench()
    const poll = (count: number): number | 'again' => {
      for (let n = 0; n < count; n++) bench.memory.setUint32(0x1000 + n * 4, 1, true)
      return bench.call(SCHED_OP, 3, words(bench, 0x1000, 0, count, 0, 0, 0))
    }
    expect([poll(128), poll(129), bench.pvAsked]).toEqual([0, EINVAL, [['sleep', true]]])
  })
})

describe('what is asked of a hypervisor', () => {
  it.each<[what: string, call: [number, ...(number | bigint)[]], result: number]>([
    ['its version', [17, 0], 0x4_0011],
    ['its page size', [17, 7], 4096],
    ['no build', [17, 10, AT], ENODATA],
    ['nothing else', [17, 11, AT], ENOSYS],
    ['an assist', [21, 0, 2], 0],
    ['an assist that is none', [21, 0, 4], EINVAL],
    ['an assist by a command that is none', [21, 2, 2], ENOSYS],
    ['what only a control domain may', [35], EPERM],
    ['what another domain has', [12, 3, AT], ESRCH],
  ])('%s', (_what, [number, ...args], result) => {
    const bench = pvBench()
    bench.memory.setUint16(AT, 5, true)
    expect(bench.call(number, ...args)).toBe(result)
  })
  it('features are in the first word of them alone', () => {
    const bench = pvBench()
    expect([bench.call(17, 6, words(bench, 0)), bench.memory.getUint32(AT + 4, true)]).toEqual([0, 0xf0])
    expect([bench.call(17, 6, words(bench, 1)), bench.memory.getUint32(AT + 4, true)]).toEqual([0, 0])
  })
  it('its console is written, up to a page at once', () => {
    const bench = pvBench()
    bench.bytes.set([104, 105], AT)
    expect([bench.call(18, 0, 2, AT), bench.call(18, 0, 2, NOWHERE), bench.call(18, 2, 0, AT)]).toEqual([
      0,
      EFAULT,
      ENOSYS,
    ])
    bench.call(18, 0, 5000, AT)
    expect([bench.written[0], bench.written[1]!.length]).toEqual(['hi', 4096])
  })
  it('memory is the domain’s own', () => {
    const bench = pvBench()
    bench.memory.setUint16(AT, SELF, true)
    expect([bench.call(12, 2), bench.call(12, 3, AT), bench.call(12, 4, AT)]).toEqual([63, 10, 10])
    expect([bench.call(12, 12, AT), bench.memory.getBigUint64(AT + 8, true)]).toEqual([0, 512n])
  })
})
