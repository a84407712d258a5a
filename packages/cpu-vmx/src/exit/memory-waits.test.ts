/** A vCPU whose page is away leaves the guest with nothing of the instruction done, and does it whole when the page is there. */
import type { FrameFiller } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { createBench } from '../testing/bench.ts'

const HLT = 0xf4
const DATA = 0x5000

/** A page that arrives later. */
function laterFiller(): FrameFiller {
  let content = new Uint8Array()
  return {
    keep: (_, bytes) => ((content = bytes.slice()), true),
    fill: async () => content,
    fillNow: () => {
      throw new Error('a vCPU can wait')
    },
  }
}

describe('a page that is away', () => {
  const rows: { name: string; page: number; program: readonly number[]; expected: number }[] = [
    // mov al, [0x5001]; mov [0x6000], al; hlt
    { name: 'data that is read', page: DATA, program: [0xa0, 0x01, 0x50, 0xa2, 0x00, 0x60, HLT], expected: 0x41 },
    // inc byte [0x5001]; mov al, [0x5001]; mov [0x6000], al; hlt
    {
      name: 'data that is read and written by one instruction',
      page: DATA,
      program: [0xfe, 0x06, 0x01, 0x50, 0xa0, 0x01, 0x50, 0xa2, 0x00, 0x60, HLT],
      expected: 0x42,
    },
    // mov al, 0x33; mov [0x6000], al; hlt
    { name: 'code', page: 0x1000, program: [0xb0, 0x33, 0xa2, 0x00, 0x60, HLT], expected: 0x33 },
    // mov al, 0x34; int 0x21 (handler at 0x3000: mov [0x6000], al; hlt)
    {
      name: 'the vector table, in the midst of a delivery',
      page: 0,
      program: [0xb0, 0x34, 0xcd, 0x21],
      expected: 0x34,
    },
    // mov al, 0x36; ud2
    {
      name: 'the vector table, in the midst of the delivery of a fault',
      page: 0,
      program: [0xb0, 0x36, 0x0f, 0x0b],
      expected: 0x36,
    },
    // mov al, 0x35; int 0x21
    { name: 'the stack of a delivery', page: 0x7000, program: [0xb0, 0x35, 0xcd, 0x21], expected: 0x35 },
    // mov ax, [0x4fff]; mov [0x6000], ah; hlt: the second page of an access that crosses
    {
      name: 'the second page of an access that crosses',
      page: DATA,
      program: [0xa1, 0xff, 0x4f, 0x88, 0x26, 0x00, 0x60, HLT],
      expected: 0x40,
    },
  ]
  const benchOf = (program: readonly number[]) => {
    const bench = createBench(program)
    bench.guestMemory.writeBytes(DATA, Uint8Array.of(0x40, 0x41))
    bench.guestMemory.writeBytes(0x3000, Uint8Array.of(0xa2, 0x00, 0x60, HLT))
    for (const vector of [6, 0x21]) bench.setVector(vector, 0x3000)
    bench.guestMemory.writeU8(0x7fff, 0)
    return bench
  }
  it.each(rows)('$name', async ({ page, program, expected }) => {
    const present = benchOf(program).vcpu
    expect(present.run(100)).toMatchObject({ reason: 'halt' })
    const { vcpu, guestMemory } = benchOf(program)
    expect(guestMemory.park(page, laterFiller())).toBe('done')
    const exit = vcpu.run(100)
    expect(exit).toMatchObject({ reason: 'memory' })
    const { address } = exit as { address: number }
    expect(address - (address % 4096)).toBe(page)
    // Too early: it waits again, and has done nothing.
    const before = { ...vcpu.readState(), retired: vcpu.instructionsRetired }
    expect(vcpu.run(100)).toMatchObject({ reason: 'memory', address })
    expect({ ...vcpu.readState(), retired: vcpu.instructionsRetired }).toEqual(before)
    expect(await guestMemory.ready(address)).toBeUndefined()
    expect(vcpu.run(100)).toMatchObject({ reason: 'halt' })
    expect(guestMemory.readU8(0x6000)).toBe(expected)
    expect(vcpu.instructionsRetired).toBe(present.instructionsRetired)
  })

  it('a loop that was compiled goes on where it was', async () => {
    // mov cx, -1; again: inc word [0x5000]; loop again; hlt
    const program = [0xb9, 0xff, 0xff, 0xff, 0x06, 0x00, 0x50, 0xe2, 0xfa, HLT]
    const { vcpu, guestMemory } = createBench(program)
    let waits = 0
    for (let exit = vcpu.run(9000); exit.reason !== 'halt'; exit = vcpu.run(9000)) {
      if (exit.reason === 'memory') {
        waits++
        expect(await guestMemory.ready(exit.address)).toBeUndefined()
      } else {
        expect(exit.reason).toBe('budget')
        expect(guestMemory.park(DATA, laterFiller())).toBe('done')
      }
    }
    expect([guestMemory.readU16(DATA), waits > 10, vcpu.instructionsRetired]).toEqual([0xffff, true, 2 + 2 * 0xffff])
  })
})
