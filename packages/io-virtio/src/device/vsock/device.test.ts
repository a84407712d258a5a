import type { IncomingStream, SocketBackend, SocketStream, StreamHandlers } from '@nonroot/contracts'
import type { MockVirtioDriver } from '@nonroot/testkit'
import { createRandom } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { subject, WAYS } from '../../virtio.test.support.ts'
import { BUFFER_SIZE } from './connection.ts'
import { Operation, Shutdown } from './packet.ts'

const CID = 7

/** A program of the host. */
class Peer {
  handlers: StreamHandlers | undefined
  received = ''
  ended = false
  destroyed = false
  paused = false
  acceptedAt: number | undefined
  /** Does not take what it gets. */
  slow = false
  readonly stream: IncomingStream = {
    handle: (handlers) => (this.handlers = handlers),
    write: (bytes) => {
      this.received += new TextDecoder().decode(bytes)
      if (!this.slow) this.handlers?.taken(bytes.length)
    },
    end: () => (this.ended = true),
    pause: () => (this.paused = true),
    resume: () => (this.paused = false),
    destroy: () => (this.destroyed = true),
    accepted: (port) => (this.acceptedAt = port),
  }
  say(text: string): void {
    this.handlers!.data(new TextEncoder().encode(text))
  }
}

function host() {
  const services = new Map<number, Peer>()
  let listener: ((port: number, stream: IncomingStream) => void) | undefined
  const backend: SocketBackend = {
    connect: (port): Promise<SocketStream> => {
      const peer = services.get(port)
      return peer ? Promise.resolve(peer.stream) : Promise.reject(new Error('nobody listens'))
    },
    onConnect: (given) => ((listener = given), () => (listener = undefined)),
    close: async () => {},
  }
  return {
    backend,
    serve: (port: number): Peer => {
      const peer = new Peer()
      services.set(port, peer)
      return peer
    },
    dial: (port: number): Peer => {
      const peer = new Peer()
      listener!(port, peer.stream)
      return peer
    },
  }
}

interface Seen {
  guestPort: number
  hostPort: number
  operation: number
  flags: number
  type: number
  bufferSize: number
  forwarded: number
  payload: string
}

/** The guest's side: sends packets, and keeps buffers for those that come. */
function guest(driver: MockVirtioDriver, forwarded = () => 0) {
  const header = (
    guestPort: number,
    hostPort: number,
    operation: number,
    extra: Partial<Record<'flags' | 'length' | 'type' | 'alloc' | 'cid' | 'dst', number>> = {},
  ) => {
    const view = new DataView(new ArrayBuffer(44))
    view.setBigUint64(0, BigInt(extra.cid ?? CID), true)
    view.setBigUint64(8, BigInt(extra.dst ?? 2), true)
    view.setUint32(16, guestPort, true)
    view.setUint32(20, hostPort, true)
    view.setUint32(24, extra.length ?? 0, true)
    view.setUint16(28, extra.type ?? 1, true)
    view.setUint16(30, operation, true)
    view.setUint32(32, extra.flags ?? 0, true)
    view.setUint32(36, extra.alloc ?? 65536, true)
    view.setUint32(40, forwarded(), true)
    return new Uint8Array(view.buffer)
  }
  return {
    send: (...[guestPort, hostPort, operation, extra]: Parameters<typeof header>) =>
      driver.request(1, [header(guestPort, hostPort, operation, extra)]),
    data: (guestPort: number, hostPort: number, text: string, length = text.length) =>
      driver.request(1, [header(guestPort, hostPort, Operation.data, { length }), new TextEncoder().encode(text)]),
    async next(room = 4096): Promise<Seen> {
      const { parts, written } = await driver.request(0, [], [room])
      const view = new DataView(parts[0]!.buffer)
      expect([view.getUint32(0, true), view.getUint32(8, true)]).toEqual([2, CID])
      expect(view.getUint32(24, true)).toBe(written - 44)
      return {
        guestPort: view.getUint32(20, true),
        hostPort: view.getUint32(16, true),
        operation: view.getUint16(30, true),
        flags: view.getUint32(32, true),
        type: view.getUint16(28, true),
        bufferSize: view.getUint32(36, true),
        forwarded: view.getUint32(40, true),
        payload: new TextDecoder().decode(parts[0]!.subarray(44, written)),
      }
    },
  }
}

async function start(model: object = {}, forwarded?: () => number) {
  const sockets = host()
  const made = await subject('virtio-vsock', { path: 'x', cid: CID }, model, { backends: { sockets: sockets.backend } })
  made.driver.start()
  return { ...made, sockets, guest: guest(made.driver, forwarded) }
}

describe.each(WAYS)('virtio-vsock over $way', ({ transport, ring }) => {
  it('connects a guest to a port of the host, and back', async () => {
    const { guest, sockets, driver } = await start({ transport, ring })
    expect(driver.registers.readConfig(0, 4)).toBe(CID)
    const service = sockets.serve(80)
    await guest.send(1000, 80, Operation.request)
    expect(await guest.next()).toMatchObject({
      guestPort: 1000,
      hostPort: 80,
      operation: Operation.response,
      bufferSize: BUFFER_SIZE,
    })
    await guest.data(1000, 80, 'hello host')
    expect(service.received).toBe('hello host')
    service.say('hello guest')
    expect(await guest.next()).toMatchObject({ operation: Operation.data, payload: 'hello guest' })
    // Half closed, then closed.
    service.handlers!.end()
    expect(await guest.next()).toMatchObject({ operation: Operation.shutdown, flags: Shutdown.send })
    await guest.send(1000, 80, Operation.shutdown, { flags: Shutdown.both })
    expect(await guest.next()).toMatchObject({ operation: Operation.reset })
    expect([service.ended, service.destroyed]).toEqual([true, false])
  })

  it('connects a program of the host to a port of the guest', async () => {
    const { guest, sockets } = await start({ transport, ring })
    const program = sockets.dial(22)
    const request = await guest.next()
    expect(request).toMatchObject({ guestPort: 22, operation: Operation.request })
    expect(program.acceptedAt).toBeUndefined()
    await guest.send(22, request.hostPort, Operation.response)
    expect(program.acceptedAt).toBe(request.hostPort)
    program.say('to the guest')
    expect((await guest.next()).payload).toBe('to the guest')
    program.handlers!.close()
    expect(await guest.next()).toMatchObject({ operation: Operation.shutdown, flags: Shutdown.both })
    await guest.send(22, request.hostPort, Operation.reset)
    const refused = sockets.dial(23)
    const other = await guest.next()
    await guest.send(23, other.hostPort, Operation.reset)
    expect(refused.destroyed).toBe(true)
  })
})

describe('virtio-vsock', () => {
  it.each([
    { accepted: 'no feature', features: [], streams: true },
    { accepted: 'STREAM', features: [0], streams: true },
    { accepted: 'NO_IMPLIED_STREAM and STREAM', features: [0, 2], streams: true },
    { accepted: 'NO_IMPLIED_STREAM alone', features: [2], streams: false },
  ])(
    'SHOULD act as if STREAM had been negotiated unless it is not implied: $accepted',
    async ({ features, streams }) => {
      const { guest, sockets, driver } = await start()
      expect(driver.offered().has(2)).toBe(true)
      driver.start({ accept: (bit) => bit > 2 || features.includes(bit) })
      sockets.serve(80)
      await guest.send(1000, 80, Operation.request)
      expect((await guest.next()).operation).toBe(streams ? Operation.response : Operation.reset)
      expect(sockets.dial(22).destroyed).toBe(!streams)
    },
  )

  it.each([0, 1, 2, 0xffff_ffff, 2 ** 32])('guest_cid MUST NOT contain a reserved CID: %i', async (cid) => {
    await expect(subject('virtio-vsock', { path: 'x', cid })).rejects.toThrow()
  })

  it('MUST send data packets only when the peer has sufficient free buffer space', async () => {
    let forwarded = 0
    const { guest, sockets } = await start({}, () => forwarded)
    const service = sockets.serve(80)
    await guest.send(1, 80, Operation.request, { alloc: 10 })
    await guest.next()
    service.say('0123456789abcdef')
    expect((await guest.next()).payload).toBe('0123456789')
    forwarded = 4
    await guest.send(1, 80, Operation.creditUpdate, { alloc: 10 })
    expect((await guest.next()).payload).toBe('abcd')
    forwarded = 14
    await guest.send(1, 80, Operation.creditUpdate, { alloc: 10 })
    expect((await guest.next()).payload).toBe('ef')
  })

  it('makes a fast host wait, and tells a fast guest of room', async () => {
    const { guest, sockets } = await start()
    const service = sockets.serve(80)
    await guest.send(1, 80, Operation.request, { alloc: 1 << 20 })
    await guest.next()
    service.say('x'.repeat(300_000))
    expect(service.paused).toBe(true)
    for (let sent = 0; sent < 300_000;) sent += (await guest.next(60_000)).payload.length
    expect(service.paused).toBe(false)
    for (let index = 0; index < 2; index++) await guest.data(1, 80, 'y'.repeat(40_000))
    expect(await guest.next()).toMatchObject({ operation: Operation.creditUpdate, forwarded: 80_000 })
    await guest.send(1, 80, Operation.creditRequest)
    expect(await guest.next()).toMatchObject({ operation: Operation.creditUpdate, forwarded: 80_000 })
    // A guest that sends more than there is room for is cut off.
    service.slow = true
    for (let index = 0; index < 7; index++) await guest.data(1, 80, 'z'.repeat(40_000))
    expect(await guest.next()).toMatchObject({ operation: Operation.reset })
    expect(service.destroyed).toBe(true)
  })

  it.each([
    { name: 'a port where nobody listens', operation: Operation.request, extra: {} },
    { name: 'data without connection', operation: Operation.data, extra: {} },
    { name: 'another type: MUST send RST', operation: Operation.request, extra: { type: 2 } },
    { name: 'an unknown operation', operation: 99, extra: {} },
  ])('resets: $name', async ({ operation, extra }) => {
    const { guest } = await start()
    await guest.send(1, 81, operation, extra)
    expect(await guest.next()).toMatchObject({ guestPort: 1, hostPort: 81, operation: Operation.reset, ...extra })
  })

  it('hears nothing from elsewhere, nor for others', async () => {
    const { guest, driver } = await start()
    await guest.send(1, 81, Operation.request, { cid: 8 })
    await guest.send(1, 81, Operation.request, { dst: 3 })
    await driver.request(1, [new Uint8Array(20)])
    await guest.send(1, 82, Operation.data)
    expect((await guest.next()).hostPort).toBe(82)
  })

  it('resets what lies about its length, and sends nothing on', async () => {
    const { guest, sockets } = await start()
    const service = sockets.serve(80)
    await guest.send(1, 80, Operation.request)
    await guest.next()
    await guest.data(1, 80, 'short', 0xffff_fff0)
    expect(await guest.next()).toMatchObject({ operation: Operation.reset })
    expect([service.received, service.destroyed]).toEqual(['', true])
  })

  it('the tx virtqueue is processed even when the rx virtqueue is empty, up to a bound', async () => {
    const { guest } = await start()
    for (let index = 0; index < 1000; index++) await guest.send(index, 81, Operation.data)
    for (let index = 0; index < 1000; index++) expect((await guest.next(64)).guestPort).toBe(index)
  })

  it('has no more connections than it may, and drops them at a reset', async () => {
    const { guest, sockets, driver } = await start()
    const programs = Array.from({ length: 1030 }, (_, index) => sockets.dial(index))
    expect(programs.filter(({ destroyed }) => destroyed)).toHaveLength(6)
    expect((await guest.next()).guestPort).toBe(0)
    driver.start()
    expect(programs.every(({ destroyed }) => destroyed)).toBe(true)
    expect(sockets.dial(1).destroyed).toBe(false)
  })

  it('tells a restored guest that its streams are gone', async () => {
    const { device, driver, sockets } = await start()
    const program = sockets.dial(5)
    const event = driver.request(2, [], [4])
    device.restore!(structuredClone(device.save!()))
    expect((await event).written).toBe(4)
    expect(program.destroyed).toBe(true)
    expect(driver.registers.queueInterrupts(2)).toBeGreaterThan(0)
  })

  it('tells it when there is a buffer for that, once', async () => {
    const { device, driver } = await start()
    device.restore!(structuredClone(device.save!()))
    expect((await driver.request(2, [], [4])).parts[0]).toEqual(new Uint8Array(4))
    driver.send(2, [{ address: driver.allocate(4), length: 4, writable: true }])
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(driver.ring(2).takeUsed()).toEqual([])
  })

  it('survives noise', async () => {
    const { guest, sockets, driver } = await start()
    const random = createRandom()
    for (let port = 0; port < 4; port++) sockets.serve(port)
    for (let round = 0; round < 1500; round++) {
      await guest.send(random(3), random(6), random(9), {
        flags: random(4),
        length: random(4) === 0 ? random(2 ** 32) : 0,
        alloc: random(2) ? 65536 : random(2 ** 32),
      })
      if (random(2)) driver.send(0, [{ address: driver.allocate(64), length: 64, writable: true }])
      driver.ring(0).takeUsed()
      if (round % 200 === 199) driver.start()
    }
    expect(driver.needsReset).toBe(false)
  })
})
