/** Rules of hypercalls that Xen's advisories tell of, and what continues a long one. By what the guest gets back and what its tables are asked. */

import { describe, expect, it } from 'vitest'
import { pvBench, SELF } from '../testing/pv-bench.ts'

const [MMU_UPDATE, MEMORY_OP, MULTICALL, VERSION, IRET, VCPU_OP, SCHED_OP, EVENT_CHANNEL_OP] = [
  1, 12, 13, 17, 23, 24, 29, 32,
]
const [EPERM, EFAULT, EINVAL, ENOSYS] = [-1, -14, -22, -38]
const LIST = 0x1000
const ARGUMENT = 0x800
type Bench = ReturnType<typeof pvBench>

/** Entries of a multicall: number and arguments. */
function entries(bench: Bench, calls: readonly (readonly [number: number, ...args: number[]])[]): void {
  calls.forEach(([number, ...args], n) => {
    bench.memory.setBigUint64(LIST + n * 64, BigInt(number), true)
    args.forEach((arg, at) => bench.memory.setBigUint64(LIST + n * 64 + 16 + at * 8, BigInt(arg), true))
  })
}
const results = (bench: Bench, count: number): number[] =>
  Array.from({ length: count }, (_, n) => Number(bench.memory.getBigInt64(LIST + n * 64 + 8, true)))

function reservation(
  bench: Bench,
  { list = LIST as number | bigint, count = 3n, order = 0, flags = 0, domain = SELF } = {},
): number {
  bench.memory.setBigUint64(ARGUMENT, BigInt(list), true)
  bench.memory.setBigUint64(ARGUMENT + 8, count, true)
  bench.memory.setUint32(ARGUMENT + 16, order, true)
  bench.memory.setUint32(ARGUMENT + 20, flags, true)
  bench.memory.setUint16(ARGUMENT + 24, domain, true)
  return ARGUMENT
}

describe('a multicall', () => {
  it('gives each entry its result', () => {
    const bench = pvBench()
    entries(bench, [[VERSION, 0], [99], [SCHED_OP, 5]])
    expect([bench.call(MULTICALL, LIST, 3), results(bench, 3)]).toEqual([0, [0x4_0011, ENOSYS, 0]])
  })
  it('has none in it', () => {
    const bench = pvBench()
    entries(bench, [[MULTICALL, LIST, 1]])
    expect([bench.call(MULTICALL, LIST, 1), results(bench, 1)]).toEqual([0, [EINVAL]])
  })
  it('XSA-213: ends with a return from a trap: nothing after it is made', () => {
    const bench = pvBench()
    entries(bench, [[IRET], [VERSION, 0]])
    bench.call(MULTICALL, LIST, 2)
    expect([bench.returned(), results(bench, 2)]).toEqual([1, [0, 0]])
  })
  it('is continued after 512 entries, from where it was', () => {
    const bench = pvBench()
    expect(bench.call(MULTICALL, LIST, 600)).toBe('again')
    expect([bench.registers.rdi, bench.registers.rsi]).toEqual([BigInt(LIST + 512 * 64), 88n])
  })
  it('keeps the rest of a long entry in the entry', () => {
    const bench = pvBench()
    entries(bench, [
      [MMU_UPDATE, 0x8000, 1500, 0, SELF],
      [VERSION, 0],
    ])
    expect(bench.call(MULTICALL, LIST, 2)).toBe('again')
    expect(bench.memory.getBigUint64(LIST + 16, true)).toBe(BigInt(0x8000 + 1024 * 16))
    const { rdi, rsi } = bench.registers
    expect([bench.call(MULTICALL, rdi, rsi), results(bench, 2)]).toEqual([0, [0, 0x4_0011]])
    expect(bench.asked.filter(([name]) => name === 'writeEntry')).toHaveLength(1500)
  })
})

describe('a batch of table updates', () => {
  it('stops at the first that is refused, and says how many were made', () => {
    const bench = pvBench()
    bench.answers.writeEntry = ['ok', 'ok', 'busy']
    expect([bench.call(MMU_UPDATE, LIST, 5, ARGUMENT, SELF), bench.memory.getUint32(ARGUMENT, true)]).toEqual([
      EINVAL,
      2,
    ])
  })
  it('counts over all its pieces', () => {
    const bench = pvBench()
    expect(bench.call(MMU_UPDATE, LIST, 1500, ARGUMENT, SELF)).toBe('again')
    const { rdi, rsi, rdx, r10 } = bench.registers
    expect([bench.call(MMU_UPDATE, rdi, rsi, rdx, r10), bench.memory.getUint32(ARGUMENT, true)]).toEqual([0, 1500])
  })
  it.each([
    ['another domain', 5, -3],
    ['another domain’s tables', SELF | (6 << 16), EPERM],
  ])('of %s is refused', (_what, domain, result) => {
    expect(pvBench().call(MMU_UPDATE, LIST, 1, 0, domain)).toBe(result)
  })
})

describe('memory', () => {
  const [INCREASE, DECREASE, POPULATE, EXCHANGE] = [0, 1, 6, 11]

  it.each([INCREASE, DECREASE, POPULATE])(
    'XSA-29, XSA-212: operation %i checks every element, wherever it is to start',
    (operation) => {
      for (const start of [4n, 1n << 20n, (1n << 48n) - 1n]) {
        const bench = pvBench()
        expect(bench.call(MEMORY_OP, BigInt(operation) | (start << 6n), reservation(bench))).toBe(EINVAL)
        expect(bench.asked).toEqual([])
      }
      const bench = pvBench()
      const argument = reservation(bench, { list: 0xffff_8000_0000_0000n })
      expect([bench.call(MEMORY_OP, operation, argument), bench.asked]).toEqual([0, []])
    },
  )
  it.each([1, 9, 18, 63, 0xffff_ffff])('XSA-31, XSA-158: no extent of order %i is given or taken', (order) => {
    for (const operation of [INCREASE, DECREASE, POPULATE]) {
      const bench = pvBench()
      expect([bench.call(MEMORY_OP, operation, reservation(bench, { order })), bench.asked]).toEqual([0, []])
    }
  })
  it('XSA-31: no list is longer than 32 bits', () => {
    const bench = pvBench()
    expect(bench.call(MEMORY_OP, DECREASE, reservation(bench, { count: 1n << 32n }))).toBe(EINVAL)
  })
  it('XSA-159, XSA-212, XSA-217: exchange, whose ways back went wrong, is not there', () => {
    const bench = pvBench()
    expect([bench.call(MEMORY_OP, EXCHANGE, reservation(bench)), bench.asked]).toEqual([ENOSYS, []])
  })
  it('XSA-222: a frame that cannot be taken back ends the call, with how many were', () => {
    const bench = pvBench()
    bench.answers.giveBack = ['ok', 'invalid']
    expect(bench.call(MEMORY_OP, DECREASE, reservation(bench))).toBe(1)
    expect(bench.asked).toHaveLength(2)
  })
  it('XSA-231: nodes and flags that are asked for change nothing', () => {
    const bench = pvBench()
    expect(bench.call(MEMORY_OP, POPULATE, reservation(bench, { flags: 0xffff_ffff }))).toBe(3)
    expect([0, 8, 16].map((at) => bench.memory.getBigUint64(LIST + at, true))).toEqual([10n, 11n, 12n])
  })
  it('says how many frames there were, where there are no more', () => {
    const bench = pvBench()
    expect(bench.call(MEMORY_OP, POPULATE, reservation(bench, { count: 9n }))).toBe(4)
  })
  it('is continued after 1024 frames, and of its own domain alone', () => {
    const bench = pvBench()
    expect(bench.call(MEMORY_OP, DECREASE, reservation(bench, { count: 1500n }))).toBe('again')
    const { rdi, rsi } = bench.registers
    expect(bench.call(MEMORY_OP, rdi, rsi)).toBe(1500)
    expect(bench.call(MEMORY_OP, DECREASE, reservation(bench, { domain: 3 }))).toBe(-3)
  })
})

describe('vcpu_info', () => {
  const register = (bench: Bench, frame: number, offset: number): number | 'again' => {
    bench.memory.setBigUint64(ARGUMENT, BigInt(frame), true)
    bench.memory.setUint32(ARGUMENT + 8, offset, true)
    return bench.call(VCPU_OP, 10, 0, ARGUMENT)
  }
  it('XSA-113, XSA-277: takes one reference in all, on whatever path a registration ends', () => {
    const bench = pvBench()
    bench.answers.hold = ['busy']
    expect([register(bench, 5, 3), register(bench, 5, 4040), register(bench, 5, 0)]).toEqual([EINVAL, EINVAL, EINVAL])
    expect(bench.held()).toBe(0)
    expect([register(bench, 5, 0), register(bench, 5, 0), register(bench, 6, 64)]).toEqual([0, EINVAL, EINVAL])
    expect(bench.held()).toBe(1)
  })
})

describe('what is asked of a hypervisor', () => {
  it('XSA-122: has its texts padded with zeros', () => {
    const bench = pvBench()
    bench.bytes.fill(0xff, LIST, LIST + 1100)
    expect([1, 2, 3, 4, 9].map((operation) => bench.call(VERSION, operation, LIST))).toEqual([0, 0, 0, 0, 0])
    expect([...bench.bytes.subarray(LIST, LIST + 1024)].some((byte) => byte === 0xff)).toBe(false)
    expect(bench.bytes[LIST + 1024]).toBe(0xff)
  })
  it('XSA-221: a poll of a port that never was is an error', () => {
    const bench = pvBench()
    const poll = (port: number): number | 'again' => {
      bench.memory.setUint32(LIST, port, true)
      bench.memory.setBigUint64(ARGUMENT, BigInt(LIST), true)
      bench.memory.setUint32(ARGUMENT + 8, 1, true)
      return bench.call(SCHED_OP, 3, ARGUMENT)
    }
    expect([poll(1), poll(2), poll(0xffff_ffff)]).toEqual([0, EINVAL, EINVAL])
  })
  it('XSA-107, XSA-188: has no FIFO event channels: no control block or array is held, wherever it would be', () => {
    const bench = pvBench()
    for (const operation of [11, 12, 13])
      for (const frame of [0n, 5n, 1n << 40n, (1n << 64n) - 1n]) {
        bench.memory.setBigUint64(ARGUMENT, frame, true)
        bench.memory.setBigUint64(ARGUMENT + 8, 0n, true)
        expect(bench.call(EVENT_CHANNEL_OP, operation, ARGUMENT)).toBe(ENOSYS)
      }
    expect([bench.asked, bench.held()]).toEqual([[], 0])
  })
  it('is refused by number, and where its arguments cannot be read', () => {
    const bench = pvBench()
    expect([7, 35, 36, 37].map((number) => bench.call(number))).toEqual([EPERM, EPERM, EPERM, EPERM])
    expect([
      bench.call(63),
      bench.call(VERSION, 6, 1n << 62n),
      bench.call(MULTICALL, -8n & ((1n << 64n) - 1n), 1),
    ]).toEqual([...[ENOSYS, EFAULT, EFAULT]])
  })
})
