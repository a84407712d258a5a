/** What a vfio-user client, which is a device of a guest, must ask and answer, message by message, as the specification's tables have it. */

import { IO_DEFERRED, NonrootError } from '@nonroot/contracts'
import type { Device, DeviceDefinition, IoSize } from '@nonroot/contracts'
import { check, checkSame } from '../check.ts'
import type { TestRegistrar } from '../check.ts'
import { benchDevice } from '../device-bench.ts'
import type { DeviceBench } from '../device-bench.ts'
import { MOCK_FUNCTION, MockVfioUserServer } from './mock-server.ts'
import type { MockAnswer } from './mock-server.ts'
import { createStreamPair, fieldsOf, versionBody, VfioErrno, VfioUser } from './wire.ts'
import type { VfioMessage } from './wire.ts'

interface ClientSubject {
  readonly device: Device
  readonly bench: DeviceBench
  readonly server: MockVfioUserServer
}

const DATA = 0x8000

/** A device whose option `socket` names the server's. */
export function testVfioUserClient(definition: DeviceDefinition, it: TestRegistrar): void {
  const create = async (script: (server: MockVfioUserServer) => void = () => {}): Promise<ClientSubject> => {
    const [ours, theirs] = createStreamPair()
    const server = new MockVfioUserServer(theirs)
    script(server)
    return { ...(await benchDevice(definition, { socket: '/peer' }, { backends: { stream: ours } })), server }
  }
  const test = (statement: string, run: (subject: ClientSubject) => Promise<void>): void => {
    it(`${definition.kind}: ${statement}`, async () => run(await create()))
  }

  test('asks for version, device, regions and interrupts, and maps memory when the function has been reset', async ({
    server,
  }) => {
    const order = server.requests.map(({ command }) => command)
    checkSame(order[0], VfioUser.version, 'the first command')
    checkSame(order.slice(-2), [VfioUser.deviceReset, VfioUser.dmaMap], 'the last commands')
    for (const command of [VfioUser.deviceGetInfo, VfioUser.deviceGetRegionInfo, VfioUser.deviceGetIrqInfo])
      check(order.includes(command), `command ${command} was not sent`)
  })
  test('is the function that the server describes, with an MSI-X table of its own', async ({ bench }) => {
    const { vendorId, deviceId, classCode, vectors, barSize } = MOCK_FUNCTION
    const [{ description }] = bench.functions as [DeviceBench['functions'][0]]
    const { bars, ...rest } = description
    checkSame(
      [rest.vendorId, rest.deviceId, rest.classCode, rest.msixVectors],
      [vendorId, deviceId, classCode, vectors],
      'identity',
    )
    checkSame([rest.revision, rest.subsystemVendorId, rest.subsystemId], [3, 0x1af4, 0x1100], 'identity')
    checkSame(
      Object.entries(bars!).map(([number, { kind, size }]) => [number, kind, size]),
      [['0', 'mmio32', barSize]],
      'BARs',
    )
  })

  // Registers

  test('reads registers by REGION_READ: the guest waits for the reply', async (subject) => {
    subject.server.registers.set([0x11, 0x22, 0x33, 0x44], 8)
    for (const [offset, size, wanted] of [
      [8, 4, 0x4433_2211],
      [8, 1, 0x11],
      [10, 2, 0x4433],
      [4092, 4, 0],
    ] as const)
      checkSame(await read(subject, offset, size), wanted, `${size} bytes at ${offset}`)
  })
  test('a read sees what was written before it', async (subject) => {
    for (let value = 0; value < 40; value++) registers(subject).write(16, 4, value)
    checkSame(await read(subject, 16, 4), 39, 'the register')
    checkSame(
      subject.server.requests.filter(({ command }) => command === VfioUser.regionWrite).length >= 40,
      true,
      'writes',
    )
  })
  test('a guest that writes without end waits for the server', async (subject) => {
    subject.server.answers.set(VfioUser.regionWrite, () => undefined)
    let accepted = 0
    while (accepted < 100_000 && registers(subject).write(16, 4, 1) !== false) accepted++
    check(accepted < 10_000, `${accepted} writes were accepted without one reply`)
  })
  test('a read that the server refuses gives all ones', async (subject) => {
    subject.server.answers.set(VfioUser.regionRead, () => VfioErrno.EINVAL)
    checkSame(await read(subject, 8, 2), 0xffff, 'value')
  })
  test('only the guest makes the function a bus master', async (subject) => {
    subject.bench.functions[0]!.description.onCommand!(0x0006)
    await settle()
    checkSame(subject.server.configuration[4]! & 4, 4, 'bus master enable')
    subject.bench.functions[0]!.description.onCommand!(0x0002)
    await settle()
    checkSame(subject.server.configuration[4]! & 4, 0, 'bus master enable')
  })

  // The server's accesses

  const dma = (address: number, count: number, ...data: readonly number[]): Uint8Array =>
    new Uint8Array([...fieldsOf([8, address], [8, count]), ...data])
  test('DMA_READ: address, count and the data', async ({ server, bench }) => {
    bench.guestMemory.writeBytes(DATA, Uint8Array.of(1, 2, 3))
    const reply = await server.peer.ask(VfioUser.dmaRead, dma(DATA, 3))
    checkSame([reply.flags, reply.body], [1, dma(DATA, 3, 1, 2, 3)], 'reply')
  })
  test('DMA_WRITE: address and count', async ({ server, bench }) => {
    const reply = await server.peer.ask(VfioUser.dmaWrite, dma(DATA, 2, 7, 8))
    checkSame([reply.flags, reply.body], [1, dma(DATA, 2)], 'reply')
    checkSame(bench.guestMemory.readU16(DATA), 0x0807, 'memory')
  })
  for (const [what, command, body, errno] of [
    ['DMA_READ beyond memory', VfioUser.dmaRead, dma(1 << 20, 4), VfioErrno.EFAULT],
    ['DMA_READ over the end of memory', VfioUser.dmaRead, dma((1 << 20) - 2, 4), VfioErrno.EFAULT],
    ['DMA_READ at the end of 64 bits', VfioUser.dmaRead, dma(2 ** 64 - 2048, 4096), VfioErrno.EFAULT],
    ['DMA_WRITE beyond memory', VfioUser.dmaWrite, dma(1 << 20, 1, 1), VfioErrno.EFAULT],
    ['DMA_WRITE over the end of memory', VfioUser.dmaWrite, dma((1 << 20) - 1, 2, 1, 1), VfioErrno.EFAULT],
    ['DMA_READ of more than was agreed', VfioUser.dmaRead, dma(0, (1 << 20) + 1), VfioErrno.EINVAL],
    ['DMA_READ with data', VfioUser.dmaRead, dma(DATA, 1, 1), VfioErrno.EINVAL],
    ['DMA_WRITE of fewer bytes than it says', VfioUser.dmaWrite, dma(DATA, 2, 1), VfioErrno.EINVAL],
    ['DMA_WRITE without a count', VfioUser.dmaWrite, new Uint8Array(8), VfioErrno.EINVAL],
    ['a command of a client', VfioUser.regionRead, dma(0, 4), VfioErrno.EINVAL],
    ['a command that is none', 77, new Uint8Array(0), VfioErrno.EINVAL],
  ] as const) {
    test(`${what} fails, and changes nothing`, async ({ server, bench }) => {
      const before = contents(bench)
      const reply = await server.peer.ask(command, body)
      checkSame([reply.flags, reply.error, reply.body.length], [0x21, errno, 0], 'reply')
      checkSame(contents(bench), before, 'memory')
    })
  }
  test('a vector signals the guest', async ({ server, bench }) => {
    for (const vector of [3, 0])
      server.peer.send({ command: VfioUser.interrupt, flags: 0x10, body: fieldsOf([4, vector]) })
    await settle()
    checkSame(bench.functions[0]!.signals, [3, 0], 'vectors')
  })

  // Life

  test('a reset is DEVICE_RESET; what the function does before it is over reaches nothing', async ({
    server,
    bench,
    device,
  }) => {
    let asked: VfioMessage | undefined
    server.answers.set(VfioUser.deviceReset, (message) => void (asked = message))
    device.reset!()
    await settle()
    check(asked, 'no DEVICE_RESET')
    const reply = await server.peer.ask(VfioUser.dmaWrite, dma(DATA, 1, 9))
    server.peer.send({ command: VfioUser.interrupt, flags: 0x10, body: fieldsOf([4, 0]) })
    await settle()
    checkSame(
      [reply.flags, bench.guestMemory.readU8(DATA), bench.functions[0]!.signals],
      [0x21, 0, []],
      'before the reply',
    )
    server.peer.reply(asked)
    await settle()
    checkSame((await server.peer.ask(VfioUser.dmaWrite, dma(DATA, 1, 9))).flags, 1, 'after the reply')
  })
  test('a server that dies in the middle of a read leaves registers of all ones', async (subject) => {
    subject.server.answers.set(VfioUser.regionRead, () => undefined)
    checkSame(registers(subject).read(8, 4), IO_DEFERRED, 'the read')
    subject.server.peer.close()
    await settle()
    checkSame([registers(subject).read(8, 4), registers(subject).read(0, 1)], [0xffff_ffff, 0xff], 'registers')
    check(registers(subject).write(8, 4, 1) !== false, 'a write waits for nobody')
    await subject.device.quiesce?.()
    subject.device.reset?.()
    check(
      subject.bench.log.lines.some((line) => line.startsWith('warn: ')),
      'nothing was said',
    )
    await subject.device.dispose?.()
  })
  for (const [what, bytes] of [
    ['a message of no size', new Uint8Array(16)],
    ['a message of 4 GiB', Uint8Array.from({ length: 16 }, () => 0xff)],
    ['a reply to nothing', Uint8Array.from([9, 9, 9, 0, 16, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0])],
  ] as const) {
    test(`a server that sends ${what} is sent away`, async (subject) => {
      subject.server.peer.sendBytes(bytes)
      await settle()
      checkSame(
        [subject.server.peer.closed, registers(subject).read(8, 4)],
        [true, 0xffff_ffff],
        'connection and registers',
      )
    })
  }
  test('a server that floods is sent away, or served; the guest stays', async (subject) => {
    for (let count = 0; count < 10_000; count++)
      subject.server.peer.send({ command: VfioUser.dmaRead, body: dma(DATA, 1) })
    await settle()
    check(subject.server.peer.closed || subject.server.peer.received.length === 10_000, 'neither')
  })

  const HOSTILE: readonly (readonly [what: string, answer: MockAnswer])[] = [
    ['an error', VfioErrno.EINVAL],
    ['one byte', new Uint8Array(1)],
    ['zeros', new Uint8Array(32)],
    ['ones', new Uint8Array(64).fill(0xff)],
    ['a mebibyte', new Uint8Array(1 << 20)],
  ]
  const HANDSHAKE = [
    'version',
    'deviceGetInfo',
    'deviceGetRegionInfo',
    'deviceGetIrqInfo',
    'regionRead',
    'deviceReset',
    'dmaMap',
  ] as const
  for (const command of HANDSHAKE) {
    for (const [what, answer] of HOSTILE) {
      it(`${definition.kind}: a server that answers ${command} with ${what} is refused with a reason`, async () => {
        await refused(create((server) => server.answers.set(VfioUser[command], () => answer)))
      })
    }
    it(`${definition.kind}: a server that goes at ${command} is refused with a reason`, async () => {
      await refused(create((server) => server.answers.set(VfioUser[command], () => void server.peer.close())))
    })
  }
  it(`${definition.kind}: a server that has no interrupts by message is refused with that reason`, async () => {
    const error = await refused(
      create((server) => server.answers.set(VfioUser.version, () => versionBody(0, 0, { capabilities: {} }))),
    )
    check(error.message.includes('interrupt'), error.message)
  })
}

async function refused(made: Promise<unknown>): Promise<NonrootError> {
  try {
    await made
  } catch (error) {
    check(error instanceof NonrootError && error.code === 'device.create' && error.remedy !== undefined, String(error))
    return error
  }
  throw new Error('it was accepted')
}

const registers = ({ bench }: ClientSubject) => bench.functions[0]!.description.bars![0]!.handler

async function read(subject: ClientSubject, offset: number, size: IoSize): Promise<number> {
  checkSame(registers(subject).read(offset, size), IO_DEFERRED, 'the first answer')
  for (let turn = 0; turn < 20; turn++) {
    await settle()
    const value = registers(subject).read(offset, size)
    if (value !== IO_DEFERRED) return value
  }
  throw new Error('no value')
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 30; turn++) await Promise.resolve()
}

const contents = ({ guestMemory }: DeviceBench): string => {
  const bytes = new Uint8Array(guestMemory.size)
  guestMemory.readBytes(0, bytes)
  let sum = 0x811c_9dc5
  for (const byte of bytes) sum = Math.imul(sum ^ byte, 0x0100_0193)
  return sum.toString(16)
}
