/** An access that is made again: the same one each time, and its value arrives when the device is ready. */
import { gpa, IO_DEFERRED, IO_DEFERRED_64 } from '@nonroot/contracts'
import type { IoBus } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { retryAccess, type DeferredAccess } from './deferred-access.ts'

const ADDRESS = gpa(0xfebf_0000)
const port = { reason: 'portIo', port: 0x60, size: 2, data: 0x1234 } as const
const mmio = { reason: 'mmio', address: ADDRESS, data: 0x89ab_cdef, dataHigh: 0x0123_4567 } as const

describe('an access that a device could not complete', () => {
  it.each([
    { name: 'a port is read', exit: { ...port, write: false }, call: ['readPort', 0x60, 2], answer: 0xbeef, data: [0xbeef] },
    { name: 'a port is written', exit: { ...port, write: true }, call: ['writePort', 0x60, 2, 0x1234], answer: true, data: [0x1234] },
    { name: 'four bytes are read', exit: { ...mmio, size: 4, write: false }, call: ['readMmio', ADDRESS, 4], answer: 7, data: [7, 0x0123_4567] },
    { name: 'four bytes are written', exit: { ...mmio, size: 4, write: true }, call: ['writeMmio', ADDRESS, 4, 0x89ab_cdef], answer: true, data: [0x89ab_cdef, 0x0123_4567] },
    { name: 'eight bytes are read', exit: { ...mmio, size: 8, write: false }, call: ['readMmio64', ADDRESS], answer: 0xfedc_ba98_7654_3210n, data: [0x7654_3210, 0xfedc_ba98] },
    { name: 'eight bytes are written', exit: { ...mmio, size: 8, write: true }, call: ['writeMmio64', ADDRESS, 0x0123_4567_89ab_cdefn], answer: true, data: [0x89ab_cdef, 0x0123_4567] },
  ])('$name', ({ exit, call, answer, data }) => {
    const calls: unknown[][] = []
    let next: unknown
    const io = new Proxy({}, { get: (_, name) => (...args: unknown[]) => (calls.push([name, ...args]), next) }) as IoBus
    const access = { ...exit } as unknown as DeferredAccess
    // Not yet: the exit stays as it is.
    next = typeof answer === 'bigint' ? IO_DEFERRED_64 : answer === true ? false : IO_DEFERRED
    expect(retryAccess(io, access)).toBe(false)
    expect(access).toEqual(exit)
    next = answer
    expect(retryAccess(io, access)).toBe(true)
    expect(calls).toEqual([call, call])
    const { data: low, ...rest } = access
    expect('dataHigh' in rest ? [low, rest.dataHigh] : [low]).toEqual(data)
  })
})
