/** What a vfio-user server must answer, message by message, as the specification's tables have it. */

import type { BlockingStream } from '@nonroot/contracts'
import { check, checkSame } from '../check.ts'
import type { TestRegistrar } from '../check.ts'
import { fieldsOf, messageBytes, RawPeer, readFields, VfioErrno, versionBody, VfioUser } from './wire.ts'
import type { Field, VfioMessage } from './wire.ts'

export interface VfioServerSubject {
  /** A new client of the server. The last one has gone. */
  connect(): Promise<Pick<BlockingStream, 'handle' | 'write' | 'destroy'>>
}

const CAPABILITIES = { max_msg_fds: 8, max_data_xfer_size: 1 << 20, pgsizes: 4096, interrupt_messages: true }
const CONFIGURATION = 7
const MSIX = 2

/** `create`: a server of a PCI function that can be reset and has vectors of MSI-X, for each test. */
export function testVfioUserServer(name: string, create: () => Promise<VfioServerSubject>, it: TestRegistrar): void {
  const test = (
    statement: string,
    run: (peer: RawPeer, subject: VfioServerSubject) => Promise<void>,
    starts = true,
  ): void => {
    it(`${name}: ${statement}`, async () => {
      const subject = await create()
      const peer = new RawPeer(await subject.connect())
      if (starts) await start(peer)
      await run(peer, subject)
      peer.close()
    })
  }

  // VERSION

  test(
    'VERSION: the same major, a minor no greater, capabilities among those proposed',
    async (peer) => {
      const reply = await peer.ask(VfioUser.version, versionBody(0, 0, { capabilities: CAPABILITIES }))
      succeeded(reply)
      checkSame(readFields(reply.body, 2, 2), [0, 0], 'major and minor')
      checkSame(reply.body.at(-1), 0, 'the last byte of version data')
      const data = JSON.parse(new TextDecoder().decode(reply.body.subarray(4, -1))) as { capabilities?: object }
      const strangers = Object.keys(data.capabilities ?? {}).filter((key) => !(key in CAPABILITIES))
      checkSame(strangers, [], 'capabilities that were not proposed')
    },
    false,
  )
  test(
    'VERSION: version data is optional',
    async (peer) => {
      succeeded(await peer.ask(VfioUser.version, versionBody(0, 1)))
    },
    false,
  )
  for (const [what, body] of [
    ['another major', versionBody(1, 0)],
    ['data that is no JSON', new Uint8Array([0, 0, 0, 0, 0x7b, 0])],
    ['data without its NUL', versionBody(0, 0, {}).subarray(0, -1)],
    ['capabilities that are no object', versionBody(0, 0, { capabilities: 3 })],
    ['a negative size', versionBody(0, 0, { capabilities: { max_data_xfer_size: -1 } })],
    ['a size that no device can use', versionBody(0, 0, { capabilities: { max_data_xfer_size: 0 } })],
    ['three bytes', new Uint8Array(3)],
  ] as const) {
    test(
      `VERSION with ${what} ends the connection`,
      async (peer) => {
        peer.send({ command: VfioUser.version, body })
        await ends(peer)
      },
      false,
    )
  }
  test(
    'a command before VERSION ends the connection',
    async (peer) => {
      peer.send({ command: VfioUser.deviceGetInfo, body: fieldsOf([4, 16], [4, 0], [4, 0], [4, 0]) })
      await ends(peer)
    },
    false,
  )

  // Framing

  test('messages may come byte by byte, and several at once', async (peer) => {
    const request: VfioMessage = { id: 77, command: VfioUser.deviceGetInfo, flags: 0, error: 0, body: infoRequest() }
    const bytes = messageBytes(request)
    for (const byte of bytes) peer.sendBytes(Uint8Array.of(byte))
    checkSame((await peer.next())?.id, 77, 'ID')
    peer.sendBytes(new Uint8Array([...bytes, ...bytes]))
    checkSame([(await peer.next())?.id, (await peer.next())?.id], [77, 77], 'IDs may be used again, even concurrently')
  })
  test('No_reply: there is none', async (peer) => {
    peer.send({ command: VfioUser.deviceReset, flags: 0x10 })
    succeeded(await peer.ask(VfioUser.deviceGetInfo, infoRequest()))
  })
  for (const [what, bytes] of [
    ['a size below the header', messageBytes({ id: 1, command: 4, flags: 0, error: 0, body: infoRequest() }, 15)],
    ['a size of 0', messageBytes({ id: 1, command: 4, flags: 0, error: 0, body: infoRequest() }, 0)],
    ['a size of 4 GiB', messageBytes({ id: 1, command: 4, flags: 0, error: 0, body: infoRequest() }, 0xffff_ffff)],
    [
      'a type that is neither command nor reply',
      messageBytes({ id: 1, command: 4, flags: 2, error: 0, body: infoRequest() }),
    ],
    ['a reply to nothing', messageBytes({ id: 9, command: 11, flags: 1, error: 0, body: new Uint8Array(20) })],
  ] as const) {
    test(`${what} ends the connection`, async (peer) => {
      peer.sendBytes(bytes)
      await ends(peer)
    })
  }
  for (const command of [0, 14, 99, VfioUser.version, VfioUser.dmaRead, VfioUser.dmaWrite, 0xffff])
    test(`command ${command} of a client fails`, async (peer) => failed(await peer.ask(command, new Uint8Array(24))))

  // Memory

  const map = (address: number, size: number, flags = 3, argsz = 32): Uint8Array =>
    fieldsOf([4, argsz], [4, flags], [8, 0], [8, address], [8, size])
  const unmap = (address: number, size: number, argsz = 24): Uint8Array =>
    fieldsOf([4, argsz], [4, 0], [8, address], [8, size])
  test('DMA_MAP: a reply without payload, EEXIST over an existing region', async (peer) => {
    const reply = await peer.ask(VfioUser.dmaMap, map(0x1_0000, 0x1_0000))
    succeeded(reply)
    checkSame(reply.body.length, 0, 'bytes of payload')
    for (const [address, size] of [
      [0x1_0000, 0x1_0000],
      [0x1_f000, 0x1000],
      [0, 0x1_0001],
      [0x1_4000, 0x100],
    ] as const)
      failed(await peer.ask(VfioUser.dmaMap, map(address, size)), VfioErrno.EEXIST)
    succeeded(await peer.ask(VfioUser.dmaMap, map(0x2_0000, 0x1000)))
  })
  for (const [what, body] of [
    ['no size', map(0x1000, 0)],
    ['rights that do not exist', map(0x1000, 0x1000, 7)],
    ['no rights', map(0x1000, 0x1000, 0)],
    ['a short argsz', map(0x1000, 0x1000, 3, 31)],
    ['a short body', map(0x1000, 0x1000).subarray(0, 31)],
    ['an end beyond all addresses', map(2 ** 63, 2 ** 63)],
  ] as const)
    test(`DMA_MAP with ${what} fails`, async (peer) => failed(await peer.ask(VfioUser.dmaMap, body), VfioErrno.EINVAL))
  test('DMA_UNMAP: the request’s entry, for exactly one mapping', async (peer) => {
    succeeded(await peer.ask(VfioUser.dmaMap, map(0x1_0000, 0x1_0000)))
    failed(await peer.ask(VfioUser.dmaUnmap, unmap(0x1_0000, 0x8000)), VfioErrno.ENOENT)
    const reply = await peer.ask(VfioUser.dmaUnmap, unmap(0x1_0000, 0x1_0000))
    succeeded(reply)
    checkSame(reply.body, unmap(0x1_0000, 0x1_0000), 'payload')
    failed(await peer.ask(VfioUser.dmaUnmap, unmap(0x1_0000, 0x1_0000)), VfioErrno.ENOENT)
    failed(await peer.ask(VfioUser.dmaUnmap, unmap(0x1_0000, 0x1_0000, 8)), VfioErrno.EINVAL)
  })

  // What there is

  test('DEVICE_GET_INFO: a PCI function with its nine regions and five interrupt types', async (peer) => {
    const reply = await peer.ask(VfioUser.deviceGetInfo, infoRequest())
    succeeded(reply)
    checkSame(reply.body.length, 16, 'bytes of payload')
    const [argsz, flags, regions, irqs] = readFields(reply.body, 4, 4, 4, 4)
    checkSame([argsz, flags! & 2, regions! >= 9, irqs! >= 5], [16, 2, true, true], 'device info')
    for (const argsz of [0, 15]) failed(await peer.ask(VfioUser.deviceGetInfo, infoRequest(argsz)), VfioErrno.EINVAL)
  })
  test('DEVICE_GET_REGION_INFO: index, size and rights of each region', async (peer) => {
    for (let index = 0; index < 9; index++) {
      const reply = await peer.ask(VfioUser.deviceGetRegionInfo, regionRequest(index))
      succeeded(reply)
      const [argsz, flags, found, capabilities, size] = readFields(reply.body, 4, 4, 4, 4, 8)
      checkSame([reply.body.length, argsz, found, capabilities], [32, 32, index, 0], `region ${index}`)
      checkSame(flags! & 3, size! > 0 ? 3 : 0, `rights of region ${index}`)
      if (index === CONFIGURATION) check(size! >= 256, `configuration space of ${size} bytes`)
    }
    failed(await peer.ask(VfioUser.deviceGetRegionInfo, regionRequest(9)), VfioErrno.EINVAL)
    failed(await peer.ask(VfioUser.deviceGetRegionInfo, regionRequest(0, 31)), VfioErrno.EINVAL)
  })
  test('DEVICE_GET_IRQ_INFO: index and count of each type', async (peer) => {
    for (let index = 0; index < 5; index++) {
      const reply = await peer.ask(VfioUser.deviceGetIrqInfo, irqRequest(index))
      succeeded(reply)
      const [argsz, , found, count] = readFields(reply.body, 4, 4, 4, 4)
      checkSame([reply.body.length, argsz, found], [16, 16, index], `interrupt type ${index}`)
      if (index === MSIX) check(count! > 0, 'the function has no vectors of MSI-X')
    }
    failed(await peer.ask(VfioUser.deviceGetIrqInfo, irqRequest(5)), VfioErrno.EINVAL)
  })
  test('DEVICE_GET_REGION_IO_FDS fails where there are no file descriptors', async (peer) => {
    failed(await peer.ask(VfioUser.deviceGetRegionIoFds, fieldsOf([4, 16], [4, 0], [4, 0], [4, 0])), VfioErrno.ENOTSUP)
  })

  // Interrupts

  const setIrqs = (flags: number, start: number, count: number, ...data: readonly Field[]): Uint8Array =>
    fieldsOf([4, 20 + data.length], [4, flags], [4, MSIX], [4, start], [4, count], ...data)
  const [NONE, BOOL, EVENTFD, MASK, UNMASK, TRIGGER] = [1, 2, 4, 8, 16, 32]
  test('DEVICE_SET_IRQS: triggers, masks and unmasks vectors', async (peer) => {
    const seen: number[] = []
    peer.onCommand = ({ command, body }) => void (command === VfioUser.interrupt && seen.push(readFields(body, 4)[0]!))
    const act = async (...given: Parameters<typeof setIrqs>): Promise<void> => {
      const reply = await peer.ask(VfioUser.deviceSetIrqs, setIrqs(...given))
      succeeded(reply)
      checkSame(reply.body.length, 0, 'bytes of payload')
    }
    await act(NONE | TRIGGER, 0, 1)
    await act(BOOL | TRIGGER, 0, 2, [1, 0], [1, 1])
    checkSame(seen.splice(0), [0, 1], 'vectors')
    await act(NONE | MASK, 1, 1)
    await act(NONE | TRIGGER, 1, 1)
    checkSame(seen, [], 'vectors while masked')
    await act(NONE | UNMASK, 1, 1)
    checkSame(seen.splice(0), [1], 'vectors that were pending')
    await act(NONE | TRIGGER, 0, 0)
    await act(NONE | TRIGGER, 0, 1)
    checkSame(seen, [], 'vectors after all were disabled')
  })
  for (const [what, body, errno] of [
    ['an eventfd, which cannot arrive,', setIrqs(EVENTFD | TRIGGER, 0, 1), VfioErrno.ENOTSUP],
    ['two actions', setIrqs(NONE | MASK | TRIGGER, 0, 1), VfioErrno.EINVAL],
    ['no action', setIrqs(NONE, 0, 1), VfioErrno.EINVAL],
    ['two kinds of data', setIrqs(NONE | BOOL | TRIGGER, 0, 1, [1, 1]), VfioErrno.EINVAL],
    ['too few booleans', setIrqs(BOOL | TRIGGER, 0, 2, [1, 1]), VfioErrno.EINVAL],
    ['vectors that do not exist', setIrqs(NONE | TRIGGER, 0xffff_fff0, 0x20), VfioErrno.EINVAL],
    ['an unknown flag', setIrqs(64 | NONE | TRIGGER, 0, 1), VfioErrno.EINVAL],
  ] as const)
    test(`DEVICE_SET_IRQS with ${what} fails`, async (peer) =>
      failed(await peer.ask(VfioUser.deviceSetIrqs, body), errno))

  // Registers

  test('REGION_READ: offset, region, count and the data', async (peer) => {
    const all = await readRegion(peer, CONFIGURATION, 0, 256)
    checkSame(all.length, 256, 'bytes')
    for (const count of [1, 2, 4, 8, 3])
      checkSame(await readRegion(peer, CONFIGURATION, 0, count), all.subarray(0, count), `${count} bytes`)
  })
  test('REGION_WRITE: offset, region and count', async (peer) => {
    const body = regionBody(4, CONFIGURATION, 2, Uint8Array.of(6, 0))
    const reply = await peer.ask(VfioUser.regionWrite, body)
    succeeded(reply)
    checkSame(reply.body, body.subarray(0, 16), 'payload')
    checkSame([...(await readRegion(peer, CONFIGURATION, 4, 2))], [6, 0], 'the command register')
  })
  for (const [what, command, body] of [
    ['REGION_READ beyond a region', VfioUser.regionRead, regionBody(254, CONFIGURATION, 4)],
    ['REGION_READ of a region that is not there', VfioUser.regionRead, regionBody(0, 8, 4)],
    ['REGION_READ of region 9', VfioUser.regionRead, regionBody(0, 9, 4)],
    ['REGION_READ of nothing', VfioUser.regionRead, regionBody(0, CONFIGURATION, 0)],
    ['REGION_READ at the end of 64 bits', VfioUser.regionRead, regionBody(2 ** 64 - 2048, CONFIGURATION, 4096)],
    ['REGION_READ with data', VfioUser.regionRead, regionBody(0, CONFIGURATION, 1, Uint8Array.of(0))],
    [
      'REGION_WRITE of fewer bytes than it says',
      VfioUser.regionWrite,
      regionBody(4, CONFIGURATION, 4, Uint8Array.of(6)),
    ],
    [
      'REGION_WRITE of more bytes than it says',
      VfioUser.regionWrite,
      regionBody(4, CONFIGURATION, 1, Uint8Array.of(6, 0)),
    ],
    ['REGION_WRITE without a count', VfioUser.regionWrite, new Uint8Array(12)],
  ] as const)
    test(`${what} fails`, async (peer) => failed(await peer.ask(command, body), VfioErrno.EINVAL))

  // Life

  test('DEVICE_RESET: configuration space is as at power-on', async (peer) => {
    const before = await readRegion(peer, CONFIGURATION, 0, 256)
    await peer.ask(VfioUser.regionWrite, regionBody(4, CONFIGURATION, 2, Uint8Array.of(6, 4)))
    const reply = await peer.ask(VfioUser.deviceReset)
    succeeded(reply)
    checkSame(reply.body.length, 0, 'bytes of payload')
    checkSame(await readRegion(peer, CONFIGURATION, 0, 256), before, 'configuration space')
    failed(await peer.ask(VfioUser.deviceReset, new Uint8Array(1)))
  })
  test('the next client finds nothing of the last one', async (peer, subject) => {
    succeeded(await peer.ask(VfioUser.dmaMap, map(0x1_0000, 0x1000)))
    await peer.ask(VfioUser.regionWrite, regionBody(4, CONFIGURATION, 2, Uint8Array.of(6, 0)))
    peer.close()
    const next = new RawPeer(await subject.connect())
    await start(next)
    succeeded(await next.ask(VfioUser.dmaMap, map(0x1_0000, 0x1000)))
    checkSame([...(await readRegion(next, CONFIGURATION, 4, 2))], [0, 0], 'the command register')
    next.close()
  })
}

async function start(peer: RawPeer): Promise<void> {
  succeeded(await peer.ask(VfioUser.version, versionBody(0, 1, { capabilities: CAPABILITIES })))
}

function succeeded(reply: VfioMessage): void {
  checkSame([reply.flags, reply.error], [1, 0], `flags and error of the reply to command ${reply.command}`)
}

function failed(reply: VfioMessage, errno?: number): void {
  checkSame(reply.flags, 0x21, `flags of the reply to command ${reply.command}`)
  checkSame(reply.body.length, 0, 'bytes of payload of an error')
  if (errno !== undefined) checkSame(reply.error, errno, 'errno')
}

/** It may say so first. */
async function ends(peer: RawPeer): Promise<void> {
  for (let reply = await peer.next(); reply; reply = await peer.next()) failed(reply)
  check(peer.closed, 'the connection is not over')
}

const infoRequest = (argsz = 16): Uint8Array => fieldsOf([4, argsz], [4, 0], [4, 0], [4, 0])
const regionRequest = (index: number, argsz = 32): Uint8Array =>
  fieldsOf([4, argsz], [4, 0], [4, index], [4, 0], [8, 0], [8, 0])
const irqRequest = (index: number): Uint8Array => fieldsOf([4, 16], [4, 0], [4, index], [4, 0])

function regionBody(offset: number, region: number, count: number, data = new Uint8Array(0)): Uint8Array {
  return new Uint8Array([...fieldsOf([8, offset], [4, region], [4, count]), ...data])
}

async function readRegion(peer: RawPeer, region: number, offset: number, count: number): Promise<Uint8Array> {
  const reply = await peer.ask(VfioUser.regionRead, regionBody(offset, region, count))
  succeeded(reply)
  checkSame(readFields(reply.body, 8, 4, 4), [offset, region, count], 'offset, region and count')
  checkSame(reply.body.length, 16 + count, 'bytes of payload')
  return reply.body.subarray(16)
}
