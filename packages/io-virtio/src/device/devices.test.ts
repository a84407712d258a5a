import { Balloon, FRAME_SIZE } from '@nonroot/contracts'
import type { VirtioPort } from '@nonroot/contracts'
import { createTestConsole, createTestGuestMemory, createTestHostMemory } from '@nonroot/testkit'
import type { MockVirtioDriver } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { subject, WAYS } from '../virtio.test.support.ts'
import { BalloonFeature } from './balloon.ts'
import { ConsoleEvent, VirtioConsole } from './console.ts'

const text = (value: string) => new TextEncoder().encode(value)
const untext = (bytes: Uint8Array) => new TextDecoder().decode(bytes)

describe.each(WAYS)('virtio-rng over $way', ({ transport, ring }) => {
  it('MUST place one or more random bytes into the buffer', async () => {
    const { driver } = await subject('virtio-rng', {}, { transport, ring })
    driver.start()
    const { parts, written } = await driver.request(0, [], [3, 61])
    expect(written).toBe(64)
    expect(parts.every((part) => part.every((byte) => byte !== 0))).toBe(true)
  })
})

describe('virtio-rng', () => {
  it('has a bound for what it makes at a time', async () => {
    const { driver } = await subject('virtio-rng', {})
    driver.start()
    expect((await driver.request(0, [], [200_000])).written).toBe(65536)
  })
})

describe.each(WAYS)('virtio-console over $way', ({ transport, ring }) => {
  it('carries bytes both ways', async () => {
    const console = createTestConsole()
    const { driver } = await subject('virtio-console', {}, { transport, ring }, { backends: { console } })
    driver.start()
    const { written } = await driver.request(1, [text('hello '), text('world')])
    expect([console.output, written]).toEqual(['hello world', 0])
    // Typed before there is a buffer for it.
    console.type('ls -l')
    const first = await driver.request(0, [], [3])
    const second = await driver.request(0, [], [100])
    expect(untext(first.parts[0]!)).toBe('ls ')
    expect(untext(second.parts[0]!.subarray(0, second.written))).toBe('-l')
    // And after.
    const later = driver.request(0, [], [100])
    console.type('x')
    expect((await later).written).toBe(1)
  })
})

describe('virtio-console', () => {
  it('MUST allow a write to emerg_wr, even on an unconfigured device', async () => {
    const console = createTestConsole()
    const { driver } = await subject('virtio-console', {}, {}, { backends: { console } })
    driver.registers.writeConfig(8, 4, 0x21)
    expect(console.output).toBe('!')
  })

  it('has a size', async () => {
    let resize: ((size: { columns: number; rows: number }) => void) | undefined
    const console = {
      ...createTestConsole(),
      onResize: (listener: typeof resize) => ((resize = listener), () => {}),
    }
    const { driver } = await subject('virtio-console', {}, {}, { backends: { console } })
    driver.start()
    expect([driver.registers.readConfig(0, 2), driver.registers.readConfig(2, 2)]).toEqual([80, 25])
    resize!({ columns: 132, rows: 43 })
    expect([driver.registers.readConfig(0, 2), driver.registers.readConfig(2, 2)]).toEqual([132, 43])
    expect(driver.registers.configInterrupts()).toBe(1)
  })

  it('drops what nobody fetches', async () => {
    const console = createTestConsole()
    const { driver } = await subject('virtio-console', {}, {}, { backends: { console } })
    driver.start()
    for (let index = 0; index < 40; index++) console.type('y'.repeat(65536))
    expect((await driver.request(0, [], [100])).written).toBe(100)
  })

  it.each([
    { to: 'a terminal', console: true, most: 2 ** 20, kept: 2 ** 20 },
    // A part would make nonsense of what follows.
    { to: 'a program', console: false, most: 2 ** 25, kept: 2 ** 25 - 2 },
  ])('keeps of a message to $to what there is room for', ({ console: isConsole, most, kept }) => {
    const backend = createTestConsole()
    const port = { queue: () => undefined, accepted: () => true } as unknown as VirtioPort
    const device = new VirtioConsole(port, [{ backend, name: 'a', console: isConsole }])
    backend.type('y'.repeat(most - 2))
    backend.type('abc')
    const [{ input }] = device.save().data['ports'] as [{ input: Uint8Array }]
    expect(input.length).toBe(kept)
  })

  const control = (id: number, event: number, value: number): Uint8Array => {
    const view = new DataView(new ArrayBuffer(8))
    view.setUint32(0, id, true)
    view.setUint16(4, event, true)
    view.setUint16(6, value, true)
    return new Uint8Array(view.buffer)
  }
  const next = async (driver: MockVirtioDriver) => {
    const { parts, written } = await driver.request(2, [], [64])
    const view = new DataView(parts[0]!.buffer)
    return {
      id: view.getUint32(0, true),
      event: view.getUint16(4, true),
      value: view.getUint16(6, true),
      tail: untext(parts[0]!.subarray(8, written)),
    }
  }

  it('announces its ports, each once', async () => {
    const console = createTestConsole()
    const ports = [{ console: true }, { name: 'org.nonroot.agent' }]
    const { driver } = await subject('virtio-console', { ports }, {}, { backends: { console } })
    driver.start()
    expect(driver.registers.readConfig(4, 4)).toBe(2)
    await driver.request(3, [control(0, ConsoleEvent.deviceReady, 1)])
    expect([await next(driver), await next(driver)]).toMatchObject([
      { id: 0, event: ConsoleEvent.portAdd },
      { id: 1, event: ConsoleEvent.portAdd },
    ])
    await driver.request(3, [control(0, ConsoleEvent.portReady, 1)])
    expect([await next(driver), await next(driver), await next(driver)]).toMatchObject([
      { id: 0, event: ConsoleEvent.consolePort },
      { id: 0, event: ConsoleEvent.resize, tail: 'P\0\x19\0' },
      { id: 0, event: ConsoleEvent.portOpen, value: 1 },
    ])
    await driver.request(3, [control(1, ConsoleEvent.portReady, 1)])
    expect([await next(driver), await next(driver)]).toMatchObject([
      { id: 1, event: ConsoleEvent.portName, tail: 'org.nonroot.agent' },
      { id: 1, event: ConsoleEvent.portOpen, value: 1 },
    ])
    // "MUST NOT specify a port which exists in a VIRTIO_CONSOLE_DEVICE_ADD message"
    await driver.request(3, [control(0, ConsoleEvent.deviceReady, 1)])
    await driver.request(3, [control(9, ConsoleEvent.portReady, 1)])
    await driver.request(5, [text('from the agent')])
    expect(console.output).toBe('from the agent')
  })

  it('announces nothing to a driver that could not set itself up', async () => {
    const { driver } = await subject('virtio-console', { ports: [{ name: 'a' }] })
    driver.start()
    await driver.request(3, [control(0, ConsoleEvent.deviceReady, 0)])
    expect(await Promise.race([next(driver), late()])).toBe(false)
  })

  it.each([
    { ports: undefined, multiport: false },
    { ports: [{ console: true }], multiport: false },
    { ports: [{ console: false, name: 'a' }], multiport: true },
    { ports: [{ console: true, name: 'a' }], multiport: true },
    { ports: [{ console: true }, { name: 'a' }], multiport: true },
  ])('has several ports, or one with a name, only with MULTIPORT: $ports', async ({ ports, multiport }) => {
    const { driver } = await subject('virtio-console', ports ? { ports } : {}, {}, { backends: { console: createTestConsole() } })
    expect(driver.offered().has(1)).toBe(multiport)
  })

  it('restored, it has what was typed before it was saved, and nothing else', async () => {
    const console = createTestConsole()
    const { device, driver } = await subject('virtio-console', {}, {}, { backends: { console } })
    driver.start()
    console.type('before')
    const saved = structuredClone(device.save!())
    console.type(' after')
    device.restore!(saved)
    const { parts, written } = await driver.request(0, [], [100])
    expect(untext(parts[0]!.subarray(0, written))).toBe('before')
  })

  it('keeps no more messages than it may', async () => {
    const { driver } = await subject('virtio-console', { ports: [{ name: 'a' }] })
    driver.start()
    for (let index = 0; index < 200; index++) await driver.request(3, [control(0, ConsoleEvent.deviceReady, 1)])
    let messages = 0
    while (messages < 100 && (await Promise.race([next(driver).then(() => true), late()]))) messages++
    expect(messages).toBe(16)
  })
  const late = () => new Promise<false>((resolve) => setTimeout(resolve, 20, false))

  it('refuses output that no driver sends', async () => {
    const memory = createTestGuestMemory({ hostMemory: createTestHostMemory(900), ram: 3 << 20 })
    const { driver } = await subject('virtio-console', {}, {}, { guestMemory: memory })
    driver.start()
    driver.send(1, [{ address: 0x10_0000, length: (1 << 20) + 1 }])
    expect(driver.needsReset).toBe(true)
  })
})

describe('virtio-balloon', () => {
  async function start(accept: (bit: number) => boolean = () => true) {
    const made = await subject('virtio-balloon', {})
    made.driver.start({ accept })
    const balloon = made.device.offers!.get(Balloon) as Balloon
    return { ...made, balloon }
  }
  const pages = (...numbers: number[]): Uint8Array => new Uint8Array(Uint32Array.from(numbers).buffer)

  it('asks for frames, and gives those it gets to the host', async () => {
    const { driver, balloon, bench } = await start()
    const changes: number[] = []
    balloon.onChange((frames) => changes.push(frames))
    balloon.setTarget(3)
    expect([driver.registers.readConfig(0, 4), driver.registers.configInterrupts()]).toEqual([3, 1])
    for (const page of [200, 201, 202]) bench.guestMemory.writeU8(page * FRAME_SIZE, 1)
    await driver.request(0, [pages(200, 201, 202)])
    expect([200, 201, 202].map((page) => bench.guestMemory.peek(page * FRAME_SIZE))).toEqual([
      undefined,
      undefined,
      undefined,
    ])
    driver.registers.writeConfig(4, 4, 3)
    expect([balloon.actualFrames, changes]).toEqual([3, [3]])
    await driver.request(1, [pages(201)])
    expect(bench.guestMemory.readU8(201 * FRAME_SIZE)).toBe(0)
  })

  it('wants no more than there is', async () => {
    const { balloon } = await start()
    balloon.setTarget(1e12)
    expect(balloon.targetFrames).toBe((1 << 20) / FRAME_SIZE)
  })

  it('releases nothing for pages that do not exist', async () => {
    const { driver, bench } = await start()
    const before = bench.guestMemory.residentFrames
    await driver.request(0, [pages(0xffff_ffff, 0xfee00, 256, 257)])
    await driver.request(0, [Uint8Array.of(1, 2, 3)])
    expect(bench.guestMemory.residentFrames).toBeGreaterThanOrEqual(before)
    expect(driver.needsReset).toBe(false)
  })

  it('statistics: MUST ignore tags that it does not recognize, MUST accept entries in any order', async () => {
    const { driver, balloon, device } = await start()
    expect(await balloon.statistics()).toBeUndefined()
    const entry = (tag: number, value: bigint): Uint8Array => {
      const view = new DataView(new ArrayBuffer(10))
      view.setUint16(0, tag, true)
      view.setBigUint64(2, value, true)
      return new Uint8Array(view.buffer)
    }
    const buffer = (free: bigint) => new Uint8Array([...entry(77, 1n), ...entry(5, 1n << 33n), ...entry(4, free)])
    const first = driver.request(2, [buffer(1n)])
    const asked = balloon.statistics()
    await first
    driver.send(2, [{ address: driver.place(buffer(2n)), length: 30 }])
    expect(await asked).toEqual({ totalBytes: 2 ** 33, freeBytes: 2 })
    // A snapshot in between changes nothing.
    await device.quiesce?.()
    device.save!()
    const again = balloon.statistics()
    driver.send(2, [{ address: driver.place(buffer(3n)), length: 30 }])
    expect(await again).toEqual({ totalBytes: 2 ** 33, freeBytes: 3 })
    const never = balloon.statistics()
    driver.reset()
    expect(await never).toBeUndefined()
  })

  it('free page reporting gives whole frames back', async () => {
    const { driver, bench } = await start()
    bench.guestMemory.fill(220 * FRAME_SIZE, 4 * FRAME_SIZE, 1)
    driver.send(4, [{ address: 220 * FRAME_SIZE + 1, length: 3 * FRAME_SIZE, writable: true }])
    expect([220, 221, 222, 223].map((page) => bench.guestMemory.readU8(page * FRAME_SIZE + 1))).toEqual([1, 0, 0, 1])
  })

  it('MUST NOT modify a reported page to a value other than poison_val', async () => {
    const { driver, bench } = await start()
    driver.registers.writeConfig(12, 4, 0xaaaa_aaaa)
    bench.guestMemory.fill(220 * FRAME_SIZE, FRAME_SIZE, 0xaa)
    driver.send(4, [{ address: 220 * FRAME_SIZE, length: FRAME_SIZE, writable: true }])
    expect(bench.guestMemory.readU8(220 * FRAME_SIZE)).toBe(0xaa)
  })

  it('free page hints: MUST ignore pages with another command ID', async () => {
    const { driver, balloon } = await start()
    const command = (id: number) => driver.request(3, [pages(id)])
    const hint = (address: number) => driver.send(3, [{ address, length: FRAME_SIZE, writable: true }])
    hint(0x50000)
    const asked = balloon.freePages()
    const id = driver.registers.readConfig(8, 4)
    expect(id).toBeGreaterThanOrEqual(2)
    await command(id + 1)
    hint(0x51000)
    await command(id)
    hint(0x52000)
    await command(0)
    expect(await asked).toEqual([{ address: 0x52000, length: FRAME_SIZE }])
    // "MUST report VIRTIO_BALLOON_CMD_ID_DONE when it no longer has need for the previously hinted pages"
    expect(driver.registers.readConfig(8, 4)).toBe(1)
    void balloon.freePages()
    expect(driver.registers.readConfig(8, 4)).toBe(id + 1)
  })

  it('free page hints: MUST NOT reuse a command ID until it has received STOP, MUST NOT modify a page after DONE', async () => {
    const { driver, balloon, bench } = await start()
    const command = () => driver.registers.readConfig(8, 4)
    const [first, again] = [balloon.freePages(), balloon.freePages()]
    const id = command()
    bench.guestMemory.fill(0x52000, FRAME_SIZE, 0x77)
    await driver.request(3, [pages(id)])
    driver.send(3, [{ address: 0x52000, length: FRAME_SIZE, writable: true }])
    expect(command()).toBe(id)
    await driver.request(3, [pages(0)])
    expect(await first).toEqual(await again)
    expect([command(), bench.guestMemory.readU8(0x52000)]).toEqual([1, 0x77])
    const later = new Set([id])
    for (let round = 0; round < 5; round++) {
      const asked = balloon.freePages()
      expect(later.has(command())).toBe(false)
      later.add(command())
      await driver.request(3, [pages(command())])
      await driver.request(3, [pages(0)])
      await asked
    }
  })

  it('unbounded hints: keeps no more of them than there is memory', async () => {
    const { driver, balloon } = await start()
    const asked = balloon.freePages()
    await driver.request(3, [pages(driver.registers.readConfig(8, 4))])
    for (let index = 0; index < 600; index++) {
      driver.send(3, [{ address: 0x50000, length: index % 2 ? 16 : 2 * FRAME_SIZE, writable: true }])
      driver.ring(3).takeUsed()
    }
    await driver.request(3, [pages(0)])
    expect((await asked)!.length).toBe((1 << 20) / (2 * FRAME_SIZE))
  })

  it.each([
    { numbering: 'the specification', queues: [0, 1, 4], reports: 4 },
    { numbering: 'drivers that leave out what they do not use', queues: [0, 1, 2], reports: 2 },
  ])('finds the reporting queue by the numbers of $numbering', async ({ queues, reports }) => {
    const { driver, bench } = await subject('virtio-balloon', {})
    const off: number[] = [BalloonFeature.statistics, BalloonFeature.freePageHint]
    driver.start({ accept: (bit) => !off.includes(bit), queues })
    bench.guestMemory.fill(220 * FRAME_SIZE, FRAME_SIZE, 1)
    driver.send(reports, [{ address: 220 * FRAME_SIZE, length: FRAME_SIZE, writable: true }])
    expect(bench.guestMemory.readU8(220 * FRAME_SIZE)).toBe(0)
  })
})
