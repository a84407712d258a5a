import { FRAME_SIZE, PluggableMemory } from '@nonroot/contracts'
import { createTestGuestMemory, createTestHostMemory } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { PLUGGABLE, subject } from '../virtio.test.support.ts'

const BLOCK = 16 * 1024
const BLOCKS = PLUGGABLE.length / BLOCK
const START = PLUGGABLE.start
const Type = { plug: 0, unplug: 1, unplugAll: 2, state: 3 } as const
const [ACK, NACK, ERROR] = [0, 1, 3]
/** Fields of the configuration, 64 bits each. */
const Field = { blockSize: 0, address: 16, regionSize: 24, usableSize: 32, plugged: 40, requested: 48 } as const

async function start(options: object = {}) {
  const made = await subject('virtio-mem', { blockSize: BLOCK, ...options })
  const { driver, device, bench } = made
  driver.start()
  const memory = device.offers!.get(PluggableMemory) as PluggableMemory
  /** The response's type, and the state that it has. */
  const ask = async (type: number, address = 0, blocks = 0, filler = 0): Promise<number[]> => {
    const request = new Uint8Array(24).fill(filler)
    const view = new DataView(request.buffer)
    view.setUint16(0, type, true)
    view.setBigUint64(8, BigInt(address), true)
    view.setUint16(16, blocks, true)
    const { parts, written } = await driver.request(0, [request], [10])
    expect(written).toBe(10)
    const response = new DataView(parts[0]!.slice().buffer)
    return [response.getUint16(0, true), response.getUint16(8, true)]
  }
  const config = (field: keyof typeof Field): number =>
    driver.registers.readConfig(Field[field], 4) + driver.registers.readConfig(Field[field] + 4, 4) * 2 ** 32
  const at = (block: number): number => START + block * BLOCK
  const write = (address: number): void => void bench.guestMemory.writeBytes(address, Uint8Array.of(7))
  return { ...made, memory, ask, config, at, write }
}

describe('virtio-mem', () => {
  it('describes its region, and asks for all of it', async () => {
    const { config, memory } = await start()
    expect(config('blockSize')).toBe(BLOCK)
    expect([config('address'), config('regionSize'), config('usableSize')]).toEqual([
      START,
      PLUGGABLE.length,
      PLUGGABLE.length,
    ])
    expect([config('plugged'), config('requested')]).toEqual([0, PLUGGABLE.length])
    expect([memory.blockFrames, memory.regionFrames, memory.usualFrames]).toEqual([4, 64, 64])
  })

  it.each([
    ['less than a block', BLOCK - 1, 0],
    ['a part of the region', 3 * BLOCK + 1, 3 * BLOCK],
    ['more than the region', 2 * PLUGGABLE.length, PLUGGABLE.length],
  ])('sets requested_size to a multiple of block_size: %s', async (_, requested, expected) => {
    const { config } = await start({ requested })
    expect(config('requested')).toBe(expected)
  })

  it('MUST change plugged_size to reflect the size of plugged memory blocks', async () => {
    const { ask, config, at, memory } = await start()
    expect(await ask(Type.plug, at(2), 3)).toEqual([ACK, 0])
    expect([config('plugged'), memory.pluggedFrames]).toEqual([3 * BLOCK, 12])
    expect(await ask(Type.unplug, at(3), 1)).toEqual([ACK, 0])
    expect(config('plugged')).toBe(2 * BLOCK)
    expect(await ask(Type.unplugAll)).toEqual([ACK, 0])
    expect(config('plugged')).toBe(0)
  })

  it.each<[string, number, (at: (block: number) => number) => [number, number]]>([
    ['plug: an address within a block', Type.plug, (at) => [at(4) + FRAME_SIZE, 1]],
    ['plug: no block', Type.plug, (at) => [at(4), 0]],
    ['plug: before the region', Type.plug, (at) => [at(-1), 1]],
    ['plug: behind the region', Type.plug, (at) => [at(BLOCKS), 1]],
    ['plug: beyond its end', Type.plug, (at) => [at(BLOCKS - 1), 2]],
    ['plug: an address beyond 2^53', Type.plug, () => [2 ** 63, 1]],
    ['plug: one is plugged already', Type.plug, (at) => [at(0), 2]],
    ['unplug: one is not plugged', Type.unplug, (at) => [at(1), 2]],
    ['unplug: no block', Type.unplug, (at) => [at(1), 0]],
    ['unplug: an address within a block', Type.unplug, (at) => [at(1) + 1, 1]],
    ['state: no block', Type.state, (at) => [at(1), 0]],
    ['state: beyond the end', Type.state, (at) => [at(BLOCKS), 1]],
    ['an unknown request', 4, (at) => [at(1), 1]],
  ])('MUST reject requests with ERROR: %s', async (_, type, of) => {
    const { ask, at, config } = await start()
    await ask(Type.plug, at(1), 1)
    expect((await ask(type, ...of(at)))[0]).toBe(ERROR)
    expect(config('plugged')).toBe(BLOCK)
  })

  it('plugs the last block of the region', async () => {
    const { ask, at } = await start()
    expect(await ask(Type.plug, at(BLOCKS - 1), 1)).toEqual([ACK, 0])
  })

  it('MUST acknowledge STATE requests, supplying the state of the memory blocks', async () => {
    const { ask, at } = await start()
    await ask(Type.plug, at(1), 2)
    expect(await ask(Type.state, at(1), 2)).toEqual([ACK, 0])
    expect(await ask(Type.state, at(3), 2)).toEqual([ACK, 1])
    expect(await ask(Type.state, at(0), 2)).toEqual([ACK, 2])
  })

  it('MUST ignore the padding in a request', async () => {
    const { ask, at } = await start()
    expect(await ask(Type.plug, at(0), 1, 0xff)).toEqual([ACK, 0])
    expect(await ask(Type.unplugAll, at(99), 99, 0xff)).toEqual([ACK, 0])
  })

  it('rejects requests to plug beyond requested_size', async () => {
    const { ask, at, memory } = await start({ requested: 2 * BLOCK })
    expect((await ask(Type.plug, at(0), 3))[0]).toBe(NACK)
    expect((await ask(Type.plug, at(0), 2))[0]).toBe(ACK)
    memory.request(0)
    expect((await ask(Type.plug, at(2), 1))[0]).toBe(NACK)
    // What is plugged already stays until the driver unplugs it.
    expect(memory.pluggedFrames).toBe(8)
  })

  it('gives frames of unplugged blocks to the host, and of no others', async () => {
    const { ask, at, write, bench } = await start()
    await ask(Type.plug, at(0), 3)
    for (const block of [0, 1, 2]) write(at(block))
    await ask(Type.unplug, at(1), 1)
    const has = (block: number) => bench.guestMemory.peek(at(block)) !== undefined
    expect([0, 1, 2].map(has)).toEqual([true, false, true])
    // Also those that the guest wrote without plugging them.
    write(at(9))
    await ask(Type.unplugAll)
    expect([0, 1, 2, 9].map(has)).toEqual([false, false, false, false])
  })

  it('MUST NOT change the state of memory blocks during device reset', async () => {
    const { ask, at, config, driver, write, bench } = await start()
    await ask(Type.plug, at(1), 1)
    write(at(1))
    driver.start()
    expect([config('plugged'), bench.guestMemory.peek(at(1)) !== undefined]).toEqual([BLOCK, true])
    expect(await ask(Type.state, at(1), 1)).toEqual([ACK, 0])
  })

  it.each([
    ['half of it', 32, 32],
    ['with a part of a block', 5, 4],
    ['more than there is', 1000, 64],
    ['less than nothing', -1, 0],
  ])('MUST send a configuration update notification when changing requested_size: %s', async (_, frames, expected) => {
    const { memory, bench, config } = await start({ requested: BLOCK })
    const before = bench.functions[0]!.signals.length + bench.functions[0]!.line.edges
    memory.request(frames)
    expect(memory.requestedFrames).toBe(expected)
    expect(config('requested')).toBe(expected * FRAME_SIZE)
    expect(bench.functions[0]!.signals.length + bench.functions[0]!.line.edges).toBe(before + 1)
  })

  it('answers nothing where there is no room for an answer, or no whole request', async () => {
    const { driver, config } = await start()
    expect((await driver.request(0, [new Uint8Array(24)], [9])).written).toBe(0)
    expect((await driver.request(0, [new Uint8Array(23)], [10])).written).toBe(0)
    expect(config('plugged')).toBe(0)
  })

  it('is the same after save and restore', async () => {
    const { ask, at, device, memory } = await start()
    await ask(Type.plug, at(1), 2)
    memory.request(32)
    const saved = device.save!()
    const other = await start()
    other.device.restore!(saved)
    expect([other.memory.pluggedFrames, other.memory.requestedFrames]).toEqual([8, 32])
    other.driver.start()
    expect(await other.ask(Type.state, other.at(1), 2)).toEqual([ACK, 0])
  })

  it.each([
    ['there is no such memory', { ram: 1 << 20 }, {}, /no memory that can be plugged/],
    ['blocks do not divide it', undefined, { blockSize: 2 * PLUGGABLE.length }, /do not divide/],
  ])('is refused where %s', async (_, memory, options, message) => {
    const hostMemory = createTestHostMemory(512)
    const guestMemory = memory && createTestGuestMemory({ hostMemory, ...memory })
    await expect(subject('virtio-mem', options, {}, guestMemory ? { guestMemory } : {})).rejects.toThrow(message)
  })

  it.each(['3 MiB', '2 KiB', '0', 'much'])('refuses blocks of %s', async (blockSize) => {
    await expect(subject('virtio-mem', { blockSize })).rejects.toThrow(/power of two|size/)
  })
})
