/** DMA without Bus Master Enable, access by access. Device kinds: their own tests; a whole machine: host-machine/must-not.test.ts. */

import { BusMasterMemory } from '@nonroot/contracts'
import type { DmaMemory } from '@nonroot/contracts'
import { createTestGuestMemory, createTestHostMemory } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'

const AT = 0x1000
const accesses: Record<string, (memory: DmaMemory) => unknown> = {
  readU8: (memory) => memory.readU8(AT),
  readU16: (memory) => memory.readU16(AT),
  readU32: (memory) => memory.readU32(AT),
  readU64: (memory) => memory.readU64(AT),
  readBytes: (memory) => memory.readBytes(AT, new Uint8Array(8)) || undefined,
  writeU8: (memory) => memory.writeU8(AT, 1) || undefined,
  writeU16: (memory) => memory.writeU16(AT, 1) || undefined,
  writeU32: (memory) => memory.writeU32(AT, 1) || undefined,
  writeU64: (memory) => memory.writeU64(AT, 1n) || undefined,
  writeBytes: (memory) => memory.writeBytes(AT, Uint8Array.of(1)) || undefined,
  fill: (memory) => memory.fill(AT, 8, 1) || undefined,
  lease: (memory) => memory.lease([{ address: AT, length: 8 }], 'write'),
}

function bench() {
  const guest = createTestGuestMemory({ hostMemory: createTestHostMemory(512), ram: 1 << 20 })
  guest.fill(AT, 8, 0x55)
  const of: { function: { busMaster: boolean } | undefined } = { function: undefined }
  const behind = new Proxy(guest, {
    get: (target, key) => {
      if (key === 'untranslated') return guest
      const value = Reflect.get(target, key) as unknown
      return typeof value === 'function' ? (value.bind(target) as unknown) : value
    },
  })
  return { of, guest, memory: new BusMasterMemory(behind, of) }
}

describe('memory of a PCI function', () => {
  it.each(Object.entries(accesses))('%s: only for a bus master', (_, access) => {
    const { memory, of, guest } = bench()
    expect(memory.untranslated).toBeDefined()
    for (const view of [memory, memory.untranslated!]) {
      of.function = { busMaster: false }
      expect([access(view), guest.readU64(AT)]).toEqual([undefined, 0x5555_5555_5555_5555n])
      expect(view.isRam(AT, 8)).toBe(true)
      of.function = { busMaster: true }
      expect(access(view)).toBeDefined()
      guest.fill(AT, 8, 0x55)
    }
    // It is no PCI function.
    of.function = undefined
    expect(access(memory)).toBeDefined()
  })

  it('what was lent stays lent', () => {
    const { memory, of, guest } = bench()
    of.function = { busMaster: true }
    const lease = memory.lease([{ address: AT, length: 1 }], 'write')!
    of.function = { busMaster: false }
    lease.views[0]![0] = 7
    lease.end()
    expect(guest.readU8(AT)).toBe(7)
  })
})
