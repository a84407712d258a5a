import { describe, expect, it } from 'vitest'
import { nearest } from './spelling.ts'

const words = ['cpu', 'paging', 'abi', 'io', 'reclaim', 'scheduler', '@nonroot/mmu', '@nonroot/cpu-vmx']

describe('the nearest right spelling', () => {
  it.each([
    { wrong: 'pagign', right: 'paging' },
    { wrong: 'PAGING', right: 'paging' },
    { wrong: 'schedular', right: 'scheduler' },
    { wrong: 'reclaimm', right: 'reclaim' },
    { wrong: '@nonroot/mmmu', right: '@nonroot/mmu' },
    { wrong: 'mmu', right: '@nonroot/mmu' },
    { wrong: 'vmx', right: '@nonroot/cpu-vmx' },
    { wrong: 'zebra', right: undefined },
    { wrong: 'memory', right: undefined },
  ])('of $wrong is $right', ({ wrong, right }) => expect(nearest(wrong, words)).toBe(right))
})
