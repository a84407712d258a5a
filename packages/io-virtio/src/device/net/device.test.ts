import { NetworkCable, NO_OFFLOADS, NO_WORK } from '@nonroot/contracts'
import type { MockVirtioDriver } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { subject, testNetwork, WAYS } from '../../virtio.test.support.ts'
import { Control, NetFeature } from './format.ts'

const MAC = [0x52, 0x54, 0, 1, 2, 3]
const OTHER = [0x52, 0x54, 0, 9, 9, 9]
const BROADCAST = [255, 255, 255, 255, 255, 255]
const MULTICAST = [0x33, 0x33, 0, 0, 0, 1]
const frameTo = (to: readonly number[], length = 60): Uint8Array => {
  const frame = new Uint8Array(length).map((_, index) => index & 0xff)
  frame.set(to)
  frame.set([8, 0], 12)
  return frame
}
const header = ({ flags = 0, type = 0, size = 0, start = 0, offset = 0 } = {}): Uint8Array => {
  const view = new DataView(new ArrayBuffer(12))
  view.setUint8(0, flags)
  view.setUint8(1, type)
  view.setUint16(4, size, true)
  view.setUint16(6, start, true)
  view.setUint16(8, offset, true)
  return new Uint8Array(view.buffer)
}

async function card(options: object = {}, model: object = {}, network = testNetwork()) {
  const made = await subject('virtio-net', options, model, { backends: { network } })
  return { ...made, network }
}

/** Buffers for the driver's first receive queue. */
const offer = (driver: MockVirtioDriver, count: number, length: number): { id: number; address: number }[] =>
  Array.from({ length: count }, () => {
    const address = driver.allocate(length)
    return { id: driver.send(0, [{ address, length, writable: true }]), address }
  })

async function control(
  driver: MockVirtioDriver,
  group: number,
  command: number,
  data: readonly number[],
  queue = 2,
): Promise<number> {
  const { parts } = await driver.request(queue, [Uint8Array.of(group, command, ...data)], [1])
  return parts[0]![0]!
}

describe.each(WAYS)('virtio-net over $way', ({ transport, ring }) => {
  it('carries frames both ways', async () => {
    const { driver, network } = await card({}, { transport, ring })
    driver.start()
    const frame = frameTo(OTHER, 1514)
    const { written } = await driver.request(1, [header(), frame.subarray(0, 14), frame.subarray(14)])
    expect([written, network.frames.map((sent) => sent.frame), network.flushed > 0]).toEqual([0, [frame], true])
    const [buffer] = offer(driver, 1, 1600)
    network.deliver(frameTo(MAC, 700))
    expect(driver.ring(0).takeUsed()).toEqual([{ id: buffer!.id, written: 712 }])
    expect(driver.bytes(buffer!.address + 12, 700)).toEqual(frameTo(MAC, 700))
  })
})

describe('"Device Operation" of virtio-net: transmission', () => {
  it.each([
    { what: 'nothing', length: 0 },
    { what: 'a part of a header', length: 12 + 13 },
    { what: 'more than any frame', length: 12 + 14 + 65536 },
  ])('drops what is $what', async ({ length }) => {
    const { driver, network } = await card()
    driver.start()
    await driver.request(1, [new Uint8Array(length)])
    expect([network.frames, driver.needsReset]).toEqual([[], false])
  })

  it.each([
    {
      what: 'a checksum',
      given: { flags: 1, start: 34, offset: 16 },
      work: { checksumStart: 34, checksumOffset: 16, segmentSize: 0, segmentIp: 0 },
    },
    {
      what: 'segments',
      given: { flags: 1, type: 1, size: 100, start: 34, offset: 16 },
      work: { checksumStart: 34, checksumOffset: 16, segmentSize: 100, segmentIp: 4 },
    },
    {
      what: 'segments of IPv6, with ECN',
      given: { flags: 1, type: 0x84, size: 9, start: 54, offset: 16 },
      work: { checksumStart: 54, checksumOffset: 16, segmentSize: 9, segmentIp: 6 },
    },
    { what: 'a checksum behind the end', given: { flags: 1, start: 50, offset: 16 }, work: undefined },
    { what: 'a checksum in the Ethernet header', given: { flags: 1, start: 0, offset: 2 }, work: undefined },
    { what: 'segments of nothing', given: { flags: 1, type: 1, size: 0, start: 34, offset: 16 }, work: undefined },
    { what: 'segments without checksum', given: { type: 1, size: 100 }, work: undefined },
    {
      what: 'UDP fragments, which were not offered',
      given: { flags: 1, type: 3, size: 100, start: 34, offset: 6 },
      work: undefined,
    },
  ])('leaves to the network: $what', async ({ given, work }) => {
    const { driver, network } = await card()
    driver.start()
    await driver.request(1, [header(given), frameTo(OTHER, given.start === 54 ? 80 : 60)])
    expect(network.frames.map((sent) => sent.work)).toEqual(work ? [work] : [])
  })

  it('answers VIRTIO_NET_ERR to a command without its header', async () => {
    const { driver } = await card()
    driver.start()
    for (const bytes of [Uint8Array.of(), Uint8Array.of(0)]) {
      const { parts } = await driver.request(2, bytes.length ? [bytes] : [], [1])
      expect(parts[0]).toEqual(Uint8Array.of(1))
    }
  })

  it.each([
    { far: { checksum: false, segment4: true, segment6: true }, offers: [] },
    { far: { checksum: true, segment4: false, segment6: false }, offers: [NetFeature.checksum] },
    { far: { checksum: true, segment4: true, segment6: false }, offers: [NetFeature.checksum, NetFeature.hostTso4] },
    { far: { checksum: true, segment4: false, segment6: true }, offers: [NetFeature.checksum, NetFeature.hostTso6] },
    { far: { checksum: true, segment4: true, segment6: true }, offers: [NetFeature.checksum, NetFeature.hostTso4, NetFeature.hostTso6] },
  ])('offers what the network does: $far', async ({ far, offers }) => {
    const { driver } = await card({}, {}, testNetwork({ ...NO_OFFLOADS, ...far }))
    const { checksum, hostTso4, hostTso6 } = NetFeature
    expect([checksum, hostTso4, hostTso6].filter((bit) => driver.offered().has(bit))).toEqual(offers)
    expect(driver.offered().has(NetFeature.multiQueue)).toBe(false)
  })

  it('offers several pairs where it has them', async () => {
    const { driver } = await card({ queues: 2 })
    expect(driver.offered().has(NetFeature.multiQueue)).toBe(true)
  })

  it('interrupts for what it received when the batch is over, on each pair', async () => {
    const { driver, network } = await card()
    driver.start()
    offer(driver, 2, 200)
    network.card!.receive(frameTo(MAC), NO_WORK)
    network.card!.receive(frameTo(MAC), NO_WORK)
    expect(driver.registers.queueInterrupts(0)).toBe(0)
    network.card!.flush()
    expect(driver.registers.queueInterrupts(0)).toBe(1)
  })

  it('offers, and takes, no offload that the network has not', async () => {
    const { driver, network } = await card({}, {}, testNetwork(NO_OFFLOADS))
    const offered = driver.offered()
    expect([NetFeature.checksum, NetFeature.hostTso4, NetFeature.hostTso6].filter((bit) => offered.has(bit))).toEqual(
      [],
    )
    driver.start()
    await driver.request(1, [header({ flags: 1, start: 34, offset: 16 }), frameTo(OTHER)])
    expect(network.frames).toEqual([])
  })

  it('keeps a frame for which the network has no room', async () => {
    const { driver, network } = await card()
    driver.start()
    network.room = 1
    for (let index = 0; index < 3; index++)
      driver.send(1, [
        { address: driver.place(Uint8Array.of(...header(), ...frameTo(OTHER, 60 + index))), length: 72 + index },
      ])
    expect([network.frames.length, driver.ring(1).takeUsed().length]).toEqual([1, 1])
    network.room = 9
    network.card!.ready()
    expect(network.frames.map((sent) => sent.frame.length)).toEqual([60, 61, 62])
    expect(driver.ring(1).takeUsed()).toHaveLength(2)
  })
})

describe('"Device Operation" of virtio-net: reception', () => {
  it('spreads a frame over buffers, and counts them (MRG_RXBUF)', async () => {
    const { driver, network } = await card()
    driver.start()
    const buffers = offer(driver, 5, 100)
    expect(network.deliver(frameTo(MAC, 250))).toBe(true)
    expect(
      driver
        .ring(0)
        .takeUsed()
        .map(({ written }) => written),
    ).toEqual([100, 100, 62])
    expect(driver.bytes(buffers[0]!.address + 10, 2)).toEqual(Uint8Array.of(3, 0))
    const parts = [
      driver.bytes(buffers[0]!.address + 12, 88),
      driver.bytes(buffers[1]!.address, 100),
      driver.bytes(buffers[2]!.address, 62),
    ]
    expect(Buffer.concat(parts).equals(frameTo(MAC, 250))).toBe(true)
  })

  it('takes no buffer for a frame that has too few, and says when there are more', async () => {
    const { driver, network } = await card()
    driver.start()
    offer(driver, 2, 100)
    expect([network.deliver(frameTo(MAC, 250)), driver.ring(0).takeUsed()]).toEqual([false, []])
    offer(driver, 1, 100)
    expect(network.readied).toBe(1)
    expect(network.deliver(frameTo(MAC, 250))).toBe(true)
    expect(driver.ring(0).takeUsed()).toHaveLength(3)
  })

  it('says when there are more buffers although a shorter frame got through meanwhile', async () => {
    const { driver, network } = await card()
    driver.start()
    offer(driver, 2, 100)
    expect([network.deliver(frameTo(MAC, 250)), network.deliver(frameTo(MAC, 60))]).toEqual([false, true])
    offer(driver, 2, 100)
    expect(network.readied).toBe(1)
  })

  it('says so, too, when its driver gives up: what waited is dropped', async () => {
    const { driver, network } = await card()
    driver.start()
    expect(network.deliver(frameTo(MAC))).toBe(false)
    driver.reset()
    expect([network.readied, network.deliver(frameTo(MAC))]).toEqual([1, true])
  })

  it('drops a frame that is longer than all buffers of a ring', async () => {
    const { driver, network } = await card({ queueSize: 4 })
    driver.start()
    offer(driver, 4, 100)
    expect([network.deliver(frameTo(MAC, 500)), network.deliver(frameTo(MAC, 60))]).toEqual([true, true])
    expect(driver.ring(0).takeUsed()).toHaveLength(1)
  })

  it('drops a frame that fits no buffer (no MRG_RXBUF)', async () => {
    const { driver, network } = await card()
    driver.start({ accept: (bit) => bit !== NetFeature.mergeableBuffers })
    offer(driver, 2, 100)
    expect([network.deliver(frameTo(MAC, 250)), driver.ring(0).takeUsed()]).toEqual([true, []])
    network.deliver(frameTo(MAC, 88))
    expect(driver.ring(0).takeUsed()).toHaveLength(1)
  })

  it('leaves to the driver what it accepted: checksums and segments', async () => {
    const { driver, network } = await card()
    driver.start()
    const [buffer] = offer(driver, 1, 2000)
    const frame = frameTo(MAC, 1500)
    frame[34 + 12] = 5 << 4
    network.deliver(frame, { checksumStart: 34, checksumOffset: 16, segmentSize: 700, segmentIp: 4 })
    // flags, gso_type, hdr_len, gso_size, csum_start, csum_offset, num_buffers
    expect(driver.bytes(buffer!.address, 12)).toEqual(
      Uint8Array.of(1, 1, 54, 0, 700 & 255, 700 >> 8, 34, 0, 16, 0, 1, 0),
    )
  })

  it('drops what was left to a driver that did not accept it', async () => {
    const { driver, network } = await card()
    driver.start({ accept: (bit) => bit !== NetFeature.guestTso4 })
    offer(driver, 2, 2000)
    expect(network.card!.offloads).toEqual({ checksum: true, segment4: false, segment6: true })
    network.deliver(frameTo(MAC, 1500), { checksumStart: 34, checksumOffset: 16, segmentSize: 700, segmentIp: 4 })
    expect(driver.ring(0).takeUsed()).toEqual([])
  })

  it.each([
    { what: 'before DRIVER_OK', prepare: (driver: MockVirtioDriver) => driver.reset() },
    { what: 'after a reset', prepare: (driver: MockVirtioDriver) => (driver.start(), driver.reset()) },
  ])('drops what arrives $what', async ({ prepare }) => {
    const { driver, network } = await card()
    prepare(driver)
    expect(network.deliver(frameTo(MAC))).toBe(true)
  })
})

describe('"Control Virtqueue" of virtio-net', () => {
  const got = (
    driver: MockVirtioDriver,
    network: ReturnType<typeof testNetwork>,
    to: readonly number[],
    tag?: number,
  ): boolean => {
    offer(driver, 1, 200)
    const frame = frameTo(to)
    if (tag !== undefined) frame.set([0x81, 0, tag >> 8, tag & 255], 12)
    network.deliver(frame)
    return driver.ring(0).takeUsed().length === 1
  }
  const reached = (driver: MockVirtioDriver, network: ReturnType<typeof testNetwork>) =>
    [MAC, OTHER, BROADCAST, MULTICAST].map((to) => got(driver, network, to))

  it.each([
    { what: 'no filter set', commands: [], reaches: [true, false, true, false] },
    { what: 'promiscuous', commands: [[0, 0, 1]], reaches: [true, true, true, true] },
    { what: 'all multicast', commands: [[0, 1, 1]], reaches: [true, false, true, true] },
    { what: 'all unicast', commands: [[0, 2, 1]], reaches: [true, true, true, false] },
    {
      what: 'no multicast',
      commands: [
        [0, 1, 1],
        [0, 3, 1],
      ],
      reaches: [true, false, true, false],
    },
    { what: 'no unicast', commands: [[0, 4, 1]], reaches: [false, false, true, false] },
    { what: 'no broadcast', commands: [[0, 5, 1]], reaches: [true, false, false, false] },
    {
      what: 'tables',
      commands: [[1, 0, 1, 0, 0, 0, ...OTHER, 1, 0, 0, 0, ...MULTICAST]],
      reaches: [true, true, true, true],
    },
    { what: 'another address', commands: [[1, 1, ...OTHER]], reaches: [false, true, true, false] },
  ])('filters by destination: $what', async ({ commands, reaches }) => {
    const { driver, network } = await card()
    driver.start()
    for (const [group, command, ...data] of commands) expect(await control(driver, group!, command!, data)).toBe(0)
    expect(reached(driver, network)).toEqual(reaches)
    // A reset of the driver ends all of it.
    driver.start()
    expect(reached(driver, network)).toEqual([true, false, true, false])
  })

  it('filters by VLAN', async () => {
    const { driver, network } = await card()
    driver.start()
    expect([got(driver, network, MAC), got(driver, network, MAC, 300)]).toEqual([true, false])
    await control(driver, Control.vlan.class, Control.vlan.add, [300 & 255, 300 >> 8])
    expect([got(driver, network, MAC, 300), got(driver, network, MAC, 301)]).toEqual([true, false])
    await control(driver, Control.vlan.class, Control.vlan.remove, [300 & 255, 300 >> 8])
    expect(got(driver, network, MAC, 300)).toBe(false)
  })

  it.each([
    { what: 'an unknown class', command: [9, 0, 1] },
    { what: 'an unknown command', command: [0, 6, 1] },
    { what: 'a mode that is neither on nor off', command: [0, 0, 2] },
    { what: 'a table that is longer than the command', command: [1, 0, 255, 255, 255, 255, ...MAC, 0, 0, 0, 0] },
    { what: 'one table', command: [1, 0, 0, 0, 0, 0] },
    { what: 'a short address', command: [1, 1, 1, 2, 3] },
    { what: 'a VLAN beyond the last', command: [2, 0, 0, 16] },
    { what: 'a VLAN of one byte', command: [2, 0, 1] },
    { what: 'a VLAN of three bytes', command: [2, 1, 1, 0, 0] },
    { what: 'a command for VLANs that is none', command: [2, 2, 1, 0] },
    { what: 'a mode of two bytes', command: [0, 0, 1, 0] },
    { what: 'a long address', command: [1, 1, ...MAC, 0] },
    { what: 'pairs of one byte', command: [4, 0, 1] },
    { what: 'offloads of four bytes', command: [5, 0, 0, 0, 0, 0] },
    { what: 'no pairs', command: [4, 0, 0, 0] },
    { what: 'more pairs than there are', command: [4, 0, 3, 0] },
    { what: 'offloads that were not offered', command: [5, 0, 1 << 2, 0, 0, 0, 0, 0, 0, 0] },
  ])('answers VIRTIO_NET_ERR to $what', async ({ command: [group, command, ...data] }) => {
    const { driver } = await card({ queues: 2 })
    driver.start()
    expect(await control(driver, group!, command!, data, 4)).toBe(1)
  })

  it('uses as many pairs as the driver says', async () => {
    const { driver, network } = await card({ queues: 2 })
    driver.start()
    for (const queue of [0, 2])
      for (let count = 0; count < 20; count++)
        driver.send(queue, [{ address: driver.allocate(200), length: 200, writable: true }])
    const spread = () => {
      for (let port = 0; port < 8; port++) {
        const frame = frameTo(MAC)
        frame[35] = port
        network.deliver(frame)
      }
      return [0, 2].map((queue) => driver.ring(queue).takeUsed().length)
    }
    expect(spread()).toEqual([8, 0])
    expect(await control(driver, Control.multiQueue.class, 0, [2, 0], 4)).toBe(0)
    expect(spread()).toEqual([4, 4])
  })

  it('is the third queue for a driver that knows one pair', async () => {
    const { driver } = await card({ queues: 2 })
    driver.start({ accept: (bit) => bit !== NetFeature.multiQueue })
    expect(await control(driver, 0, 0, [1])).toBe(0)
  })

  it('turns offloads on and off', async () => {
    const { driver, network } = await card()
    driver.start()
    await control(driver, Control.offloads.class, Control.offloads.set, [1 << 1, 0, 0, 0, 0, 0, 0, 0])
    expect(network.card!.offloads).toEqual({ checksum: true, segment4: false, segment6: false })
  })
})

describe('the link of virtio-net', () => {
  const status = (driver: MockVirtioDriver) => driver.registers.readConfig(6, 2)

  it('goes down and up at run time', async () => {
    const { driver, network, device } = await card()
    driver.start()
    const cable = device.offers!.get(NetworkCable) as NetworkCable
    expect([status(driver), cable.plugged]).toEqual([1, true])
    cable.plug(false)
    expect(cable.plugged).toBe(false)
    expect([status(driver), driver.registers.configInterrupts(), network.on]).toEqual([0, 1, false])
    offer(driver, 1, 200)
    network.deliver(frameTo(MAC))
    await driver.request(1, [header(), frameTo(OTHER)])
    expect([driver.ring(0).takeUsed(), network.frames]).toEqual([[], []])
    cable.plug(true)
    network.deliver(frameTo(MAC))
    expect([status(driver), network.on, driver.ring(0).takeUsed().length]).toEqual([1, true, 1])
  })

  it('is down while the network says so', async () => {
    const { driver, network } = await card()
    driver.start()
    network.card!.carrier(false)
    expect(status(driver)).toBe(0)
    network.card!.carrier(true)
    expect(status(driver)).toBe(1)
  })

  it('asks the driver to announce itself where it was restored', async () => {
    const { driver, device } = await card()
    driver.start()
    await control(driver, 0, 0, [1])
    const saved = device.save!()
    device.restore!(saved)
    expect(status(driver)).toBe(3)
    expect(await control(driver, Control.announce.class, 0, [])).toBe(0)
    expect(status(driver)).toBe(1)
  })
})
