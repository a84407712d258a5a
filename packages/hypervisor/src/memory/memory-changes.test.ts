/** What a paging strategy hears of changes, and when: before a page's content is compared, kept or replaced, and while its frame is still the old one. */
import { describe, expect, it } from 'vitest'
import { FRAME_SIZE, gpa } from '@nonroot/contracts'
import type { MemoryRange } from '@nonroot/contracts'
import { DemandGuestMemory } from './guest-memory.ts'
import { createHostMemory } from './host-memory.ts'
import { pcMemoryMap } from './memory-map.ts'

const MIB = 2 ** 20
const PAGE = 0x5000
const range = { address: gpa(PAGE), length: FRAME_SIZE }

function bench() {
  const host = createHostMemory(16 * MIB)
  const memory = new DemandGuestMemory({ hostMemory: host, regions: pcMemoryMap(4 * MIB) })
  memory.writeU32(PAGE, 0x1234)
  const heard: [kind: string, ranges: readonly MemoryRange[], frame: number | undefined][] = []
  /** A guest that writes until no translation allows it. */
  let lastWrite = (): void => {}
  memory.setPaging({
    onMemoryChange: (ranges, kind) => {
      heard.push([kind, ranges, memory.peek(PAGE)])
      lastWrite()
    },
  })
  return { host, memory, heard, frame: memory.peek(PAGE)!, onChange: (write: () => void) => void (lastWrite = write) }
}
/** A frame with the same content as the page. */
function twin({ host }: ReturnType<typeof bench>): number {
  const frame = host.allocateFrame()!
  host.view.setUint32(frame, 0x1234, true)
  return frame
}

describe('a paging strategy hears', () => {
  it('of a page that is to be shared before its content is compared', () => {
    const made = bench()
    const { memory, heard, frame, host, onChange } = made
    const other = twin(made)
    onChange(() => host.view.setUint32(frame + 8, 1, true))
    expect(memory.share(PAGE, other as never)).toBe('different')
    expect([heard, memory.peek(PAGE)]).toEqual([[['unmapped', [range], frame]], frame])
    onChange(() => {})
    host.view.setUint32(frame + 8, 0, true)
    expect([memory.share(PAGE, other as never), memory.peek(PAGE)]).toEqual(['done', other])
  })

  it('of a page that others are to share: it is not writable any more', () => {
    const { memory, heard, frame } = bench()
    expect([memory.isWritable(PAGE), memory.expose(PAGE)]).toEqual([true, frame])
    expect([heard, memory.isWritable(PAGE)]).toEqual([[['writeProtected', [range], frame]], false])
  })

  it('of a page that is parked before its content is kept', () => {
    const { memory, heard, frame, host, onChange } = bench()
    onChange(() => host.view.setUint32(frame, 0x5678, true))
    let kept = 0
    expect(memory.park(PAGE, { keep: (_, content) => (kept = content[0]!) > 0, fillNow: () => {} })).toBe('done')
    expect([kept, heard]).toEqual([0x78, [['unmapped', [range], frame]]])
  })

  it('of registers that are taken away', () => {
    const { memory, heard } = bench()
    memory.mapRegisters(0xc000_0000, 0xf000_0000, 0x2000)
    memory.unmapRegisters(0xc000_0000, 0x2000)
    expect(heard.map(([kind, ranges]) => [kind, ranges])).toEqual([['unmapped', [{ address: 0xc000_0000, length: 0x2000 }]]])
    expect([memory.registerPage(0xc000_0000), memory.registerPage(0xc000_1000)]).toEqual([undefined, undefined])
  })

  it('of everything before a snapshot is loaded, and processors of each page that comes', () => {
    const { memory, heard, frame, host } = bench()
    const noted: number[] = []
    host.codeHolders.fill(1)
    host.watchWrites((address) => void noted.push(address))
    memory.load([{ address: gpa(0x9000), bytes: new Uint8Array(FRAME_SIZE).fill(7) }])
    expect(heard).toEqual([['unmapped', memory.regions.map(({ start, length }) => ({ address: start, length })), frame]])
    expect([memory.readU8(PAGE), memory.readU8(0x9000)]).toEqual([0, 7])
    // The frame that was freed, and the one that was filled: the second may be the first again.
    expect(noted.filter((address) => address === memory.peek(0x9000)).length).toBeGreaterThanOrEqual(memory.peek(0x9000) === frame ? 2 : 1)
  })
})

it('what replaced a page was written, to the dirty log', () => {
  const made = bench()
  made.memory.setDirtyLog(true)
  made.memory.replace(PAGE, twin(made) as never)
  expect(made.memory.takeDirty()).toEqual([PAGE])
})

it('a run of frames that was used before is zero', () => {
  const { host } = bench()
  const all: number[] = []
  for (let frame = host.allocateFrame(); frame !== undefined; frame = host.allocateFrame()) all.push(frame)
  for (const frame of all) {
    host.bytes.fill(0xee, frame, frame + FRAME_SIZE)
    host.freeFrame(frame as never)
  }
  const run = host.allocateFrames(8, 4)!
  expect(run % (4 * FRAME_SIZE)).toBe(0)
  expect(host.bytes.subarray(run, run + 8 * FRAME_SIZE).every((byte) => byte === 0)).toBe(true)
})
