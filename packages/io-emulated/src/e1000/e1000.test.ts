import { ALL_OFFLOADS, createFrameWork, NetworkCable, NO_WORK } from '@nonroot/contracts'
import type { CableEnd, FrameWork, NetworkBackend } from '@nonroot/contracts'
import { benchDevice, createRandom, testDevice } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import plugin from '../index.ts'
import { Cause, Eecd, ReceiveControl, Reg } from './registers.ts'

const definition = plugin.devices!.find(({ kind }) => kind === 'e1000')!
const MAC = [0x52, 0x54, 0, 1, 2, 3]
const MULTICAST = [0x33, 0x33, 0, 0, 0, 1]
const TX_RING = 0x10000
const RX_RING = 0x20000
const BUFFERS = 0x30000
const RING = 16

function network() {
  const state = {
    frames: [] as { frame: Uint8Array; work: FrameWork }[],
    room: Infinity,
    readied: 0,
    on: true,
    card: undefined as unknown as CableEnd,
  }
  const backend: NetworkBackend = {
    macAddress: Uint8Array.from(MAC),
    mtu: 1500,
    connect(card) {
      state.card = card
      return {
        offloads: ALL_OFFLOADS,
        receive: (frame, work) =>
          state.room-- > 0 && state.frames.push({ frame: frame.slice(), work: { ...work } }) > 0,
        flush: () => {},
        ready: () => void state.readied++,
        carrier: (on) => void (state.on = on),
      }
    },
    close: async () => {},
  }
  return { state, backend }
}

async function card() {
  const { state, backend } = network()
  const { device, bench } = await benchDevice(definition, {}, { backends: { network: backend } })
  const base = bench.mmio[0]!.base
  const write = (register: number, value: number) => bench.writeMmio(base + register, value)
  const read = (register: number) => bench.readMmio(base + register)
  const memory = bench.guestMemory
  for (const [low, length, head, ring] of [
    [Reg.tdbal, Reg.tdlen, Reg.tdh, TX_RING],
    [Reg.rdbal, Reg.rdlen, Reg.rdh, RX_RING],
  ] as const) {
    write(low, ring)
    write(length, RING * 16)
    write(head, 0)
  }
  write(Reg.transmitControl, 2)
  let tail = 0
  const descriptor = (address: number, length: number, command: number, rest: { low?: number; high?: number } = {}) => {
    const at = TX_RING + 16 * tail
    memory.writeU64(at, BigInt(address))
    memory.writeU32(at + 8, (length | (command << 24) | (rest.low ?? 0)) >>> 0)
    memory.writeU32(at + 12, rest.high ?? 0)
    tail = (tail + 1) % RING
    return at
  }
  return { device, bench, state, write, read, memory, descriptor, send: () => write(Reg.tdt, tail) }
}

const END = 1
const REPORT = 8
const EXTENDED = 0x20
const DATA = 1 << 20

describe('e1000: transmission', () => {
  it('sends a frame out of several descriptors, and reports them', async () => {
    const { memory, descriptor, send, state, read, bench } = await card()
    memory.writeBytes(BUFFERS, new Uint8Array(100).fill(7))
    const first = descriptor(BUFFERS, 40, REPORT)
    const last = descriptor(BUFFERS + 40, 60, END | REPORT)
    send()
    expect(state.frames).toEqual([{ frame: new Uint8Array(100).fill(7), work: createFrameWork() }])
    expect([memory.readU8(first + 12), memory.readU8(last + 12), read(Reg.tdh)]).toEqual([1, 1, 2])
    // Masked until the driver wants it; reading ends it.
    expect(bench.functions[0]!.line.raised).toBe(false)
    bench.writeMmio(bench.mmio[0]!.base + Reg.ims, Cause.transmitted)
    expect([bench.functions[0]!.line.raised, read(Reg.icr), bench.functions[0]!.line.raised]).toEqual([
      true,
      Cause.transmitted,
      false,
    ])
  })

  it('fetches and reports nothing without Bus Master Enable', async () => {
    const { bench, descriptor, send, state, memory, read } = await card()
    memory.writeBytes(BUFFERS, new Uint8Array(60).fill(7))
    bench.functions[0]!.busMaster = false
    const at = descriptor(BUFFERS, 60, END | REPORT)
    send()
    expect([state.frames, memory.readU8(at + 12)]).toEqual([[], 0])
    bench.functions[0]!.busMaster = true
    descriptor(BUFFERS, 60, END | REPORT)
    send()
    expect([state.frames.length > 0, read(Reg.tdh)]).toEqual([true, 2])
  })

  it('waits for the rest of a frame', async () => {
    const { descriptor, send, state, read } = await card()
    descriptor(BUFFERS, 40, 0)
    send()
    expect([state.frames.length, read(Reg.tdh)]).toEqual([0, 0])
    descriptor(BUFFERS, 60, END)
    send()
    expect([state.frames[0]!.frame.length, read(Reg.tdh)]).toEqual([100, 2])
  })

  it('leaves segments and checksums to the network, with lengths put in', async () => {
    const { memory, descriptor, send, state } = await card()
    memory.writeU8(BUFFERS + 14, 0x45)
    // Context: TCP over IPv4 at 34, checksum at 50; headers of 54 bytes, segments of 1000.
    descriptor(0, 0, EXTENDED | 3, { high: (1000 << 16) | (54 << 8) })
    memory.writeU32(TX_RING, 14 | (24 << 8) | (33 << 16))
    memory.writeU32(TX_RING + 4, 34 | (50 << 8))
    descriptor(BUFFERS, 54, EXTENDED | 4, { low: DATA, high: 3 << 8 })
    descriptor(BUFFERS + 54, 3000, EXTENDED | END | 4, { low: DATA, high: 3 << 8 })
    send()
    const [{ frame, work }] = state.frames as [{ frame: Uint8Array; work: FrameWork }]
    expect(work).toEqual({ checksumStart: 34, checksumOffset: 16, segmentSize: 1000, segmentIp: 4 })
    expect([(frame[16]! << 8) | frame[17]!, (frame[50]! << 8) | frame[51]!]).toEqual([3040, 3020])
    const header = new DataView(frame.buffer)
    let sum = 0
    for (let at = 14; at < 34; at += 2) sum += header.getUint16(at)
    expect((sum & 0xffff) + (sum >>> 16)).toBe(0xffff)
  })

  it('keeps a frame for which the network has no room', async () => {
    const { descriptor, send, state, read } = await card()
    state.room = 1
    for (let count = 0; count < 3; count++) descriptor(BUFFERS, 60 + count, END)
    send()
    expect([state.frames.length, read(Reg.tdh)]).toEqual([1, 1])
    state.room = 9
    state.card.ready()
    expect(state.frames.map(({ frame }) => frame.length)).toEqual([60, 61, 62])
  })

  it.each([
    { what: 'outside memory', address: 2 ** 40, length: 60 },
    { what: 'shorter than a header', address: BUFFERS, length: 13 },
  ])('drops what is $what', async ({ address, length }) => {
    const { descriptor, send, state, read } = await card()
    descriptor(address, length, END)
    descriptor(BUFFERS, 60, END)
    send()
    expect([state.frames.map(({ frame }) => frame.length), read(Reg.tdh)]).toEqual([[60], 2])
  })

  it('goes round a ring without end once', async () => {
    const { memory, write, state } = await card()
    for (let index = 0; index < RING; index++) memory.writeU32(TX_RING + 16 * index + 8, 100)
    write(Reg.tdh, 3)
    write(Reg.tdt, 2)
    expect(state.frames).toEqual([])
    write(Reg.tdt, 0xffff)
  })
})

describe('e1000: reception', () => {
  const ready = (
    made: Awaited<ReturnType<typeof card>>,
    control: number = ReceiveControl.broadcast,
    buffers = RING - 1,
  ): void => {
    for (let index = 0; index < RING; index++)
      made.memory.writeU64(RX_RING + 16 * index, BigInt(BUFFERS + 2048 * index))
    made.write(Reg.receiveControl, ReceiveControl.enable | control)
    made.write(Reg.rdt, buffers)
  }
  const frameTo = (to: readonly number[], length = 60): Uint8Array => {
    const frame = new Uint8Array(length).fill(5)
    frame.set(to)
    return frame
  }

  it.each([
    { what: 'new descriptors', act: (made: Awaited<ReturnType<typeof card>>) => made.write(Reg.rdt, 3) },
    { what: 'a reset', act: (made: Awaited<ReturnType<typeof card>>) => made.write(Reg.control, 1 << 26) },
  ])('says of $what to a frame that waits, though a shorter one passed it', async ({ act }) => {
    const made = await card()
    ready(made, ReceiveControl.broadcast | ReceiveControl.longPackets, 1)
    const { card: end } = made.state
    expect([end.receive(frameTo(MAC, 3000), NO_WORK), end.receive(frameTo(MAC), NO_WORK)]).toEqual([false, true])
    act(made)
    expect(made.state.readied).toBe(1)
  })

  it('puts a frame and a place for its check sequence into a buffer', async () => {
    const made = await card()
    ready(made)
    made.write(Reg.ims, Cause.received)
    expect(made.state.card.receive(frameTo(MAC, 100), NO_WORK)).toBe(true)
    expect(made.bench.functions[0]!.line.raised).toBe(false)
    made.state.card.flush()
    expect(made.bench.functions[0]!.line.raised).toBe(true)
    expect([made.memory.readU16(RX_RING + 8), made.memory.readU8(RX_RING + 12)! & 3, made.read(Reg.rdh)]).toEqual([
      104, 3, 1,
    ])
    const bytes = new Uint8Array(104)
    made.memory.readBytes(BUFFERS, bytes)
    expect(bytes).toEqual(Uint8Array.of(...frameTo(MAC, 100), 0, 0, 0, 0))
  })

  it('spreads a long frame over buffers', async () => {
    const made = await card()
    ready(made, ReceiveControl.longPackets | ReceiveControl.stripCrc)
    made.state.card.receive(frameTo(MAC, 5000), NO_WORK)
    const status = [0, 1, 2].map((index) => [
      made.memory.readU16(RX_RING + 16 * index + 8),
      made.memory.readU8(RX_RING + 16 * index + 12)! & 3,
    ])
    expect(status).toEqual([
      [2048, 1],
      [2048, 1],
      [904, 3],
    ])
  })

  it('takes nothing where there are no buffers, and says when there are', async () => {
    const made = await card()
    ready(made, ReceiveControl.broadcast, 1)
    expect(made.state.card.receive(frameTo(MAC), NO_WORK)).toBe(true)
    expect(made.state.card.receive(frameTo(MAC), NO_WORK)).toBe(false)
    expect(made.read(Reg.icr) & Cause.overrun).toBe(Cause.overrun)
    made.write(Reg.rdt, 3)
    expect([made.state.readied, made.state.card.receive(frameTo(MAC), NO_WORK)]).toEqual([1, true])
  })

  it.each([
    { what: 'its own address', control: 0, to: MAC, got: true },
    { what: "another's", control: 0, to: [0x52, 0, 0, 0, 0, 9], got: false },
    {
      what: "another's, promiscuous",
      control: ReceiveControl.unicastPromiscuous,
      to: [0x52, 0, 0, 0, 0, 9],
      got: true,
    },
    { what: 'broadcast', control: ReceiveControl.broadcast, to: [255, 255, 255, 255, 255, 255], got: true },
    { what: 'broadcast, not wanted', control: 0, to: [255, 255, 255, 255, 255, 255], got: false },
    { what: 'multicast, not in the table', control: 0, to: MULTICAST, got: false },
    { what: 'multicast, all', control: ReceiveControl.multicastPromiscuous, to: MULTICAST, got: true },
    { what: 'more than 1,518 bytes', control: 0, to: MAC, length: 1519, got: false },
    { what: '1,518 bytes', control: 0, to: MAC, length: 1518, got: true },
  ])('filters: $what', async ({ control, to, length, got }) => {
    const made = await card()
    ready(made, control)
    made.state.card.receive(frameTo(to, length), NO_WORK)
    expect(made.read(Reg.rdh)).toBe(got ? 1 : 0)
  })

  it('finds multicast addresses in the table by their hash', async () => {
    const made = await card()
    ready(made)
    const hash = (((MULTICAST[5]! << 8) | MULTICAST[4]!) >> 4) & 0xfff
    made.write(Reg.multicastTable + 4 * (hash >> 5), 1 << (hash & 31))
    made.state.card.receive(frameTo(MULTICAST), NO_WORK)
    expect(made.read(Reg.rdh)).toBe(1)
  })
})

describe('e1000: EEPROM, PHY and link', () => {
  it('has its address in an EEPROM with the right sum, read bit by bit', async () => {
    const { read, write } = await card()
    const clock = (bit: number) => {
      for (const pins of [bit * Eecd.in, bit * Eecd.in + Eecd.clock, bit * Eecd.in]) write(Reg.eecd, Eecd.select | pins)
    }
    const word = (address: number) => {
      write(Reg.eecd, 0)
      write(Reg.eecd, Eecd.select)
      for (const bit of [1, 1, 0]) clock(bit)
      for (let shift = 5; shift >= 0; shift--) clock((address >> shift) & 1)
      let value = 0
      for (let bit = 0; bit < 16; bit++) {
        write(Reg.eecd, Eecd.select | Eecd.clock)
        value = (value << 1) | (read(Reg.eecd) & Eecd.out ? 1 : 0)
        write(Reg.eecd, Eecd.select)
      }
      return value
    }
    const words = Array.from({ length: 64 }, (_, address) => word(address))
    expect(words.slice(0, 3)).toEqual([0x5452, 0x0100, 0x0302])
    expect(words.reduce((sum, value) => sum + value, 0) & 0xffff).toBe(0xbaba)
    // And by EERD.
    write(Reg.eerd, (2 << 8) | 1)
    expect([read(Reg.eerd) >>> 16, read(Reg.eerd) & 0x10]).toEqual([0x0302, 0x10])
  })

  it('has a PHY, and no other', async () => {
    const { read, write } = await card()
    const phy = (address: number, register: number) => (
      write(Reg.mdic, (2 << 26) | (address << 21) | (register << 16)),
      read(Reg.mdic)
    )
    expect([phy(1, 2) & 0xffff, phy(1, 3) & 0xffff]).toEqual([0x0141, 0x0c20])
    expect(phy(2, 2) & (1 << 30)).not.toBe(0)
  })

  it('goes down and up at run time, and tells', async () => {
    const { read, write, device, state, bench } = await card()
    write(Reg.ims, Cause.linkChanged)
    const cable = device.offers!.get(NetworkCable) as NetworkCable
    cable.plug(false)
    expect([read(Reg.status) & 2, state.on, bench.functions[0]!.line.raised, read(Reg.icr)]).toEqual([
      0,
      false,
      true,
      Cause.linkChanged,
    ])
    cable.plug(true)
    expect([read(Reg.status) & 2, state.on]).toEqual([2, true])
  })

  it('is reset by its I/O ports', async () => {
    const { bench, read, write } = await card()
    write(Reg.rdt, 5)
    const io = bench.ports[0]?.base ?? bench.mmio[1]!.base
    const out = bench.ports[0] ? bench.writePort : bench.writeMmio
    out(io, Reg.control, 4)
    out(io + 4, 1 << 26, 4)
    expect(read(Reg.rdt)).toBe(0)
  })
})

describe('e1000: hostile drivers', () => {
  testDevice(definition, {}, it, () => ({ backends: { network: network().backend } }))

  it('nothing that registers, rings and frames hold gets out', async () => {
    const random = createRandom(0xe1000)
    const registers = Object.values(Reg).filter((register) => register < Reg.end)
    const interesting = [0, 1, 2, 15, 16, 256, 0xffff, 0xffff_ffff, TX_RING, RX_RING, 0x8000_0000, RING * 16]
    for (let round = 0; round < 40; round++) {
      const { memory, write, read, state, device } = await card()
      for (let step = 0; step < 300; step++) {
        const value = random(2) ? interesting[random(interesting.length)]! : random(2 ** 32)
        if (random(3) === 0) memory.writeU32((random(2) ? TX_RING : RX_RING) + 4 * random(64), value)
        else if (random(4) === 0)
          state.card.receive(new Uint8Array(14 + random(3000)), random(2) ? NO_WORK : { ...NO_WORK, checksumStart: 20 })
        else if (random(8) === 0) state.card.ready()
        else if (random(2)) write(registers[random(registers.length)]!, value)
        else expect(read(registers[random(registers.length)]!)).toBeGreaterThanOrEqual(0)
        state.room = random(3)
      }
      device.reset!()
      expect(read(Reg.rdt)).toBe(0)
    }
  })
})
