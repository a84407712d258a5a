/**
 * Hostile peers of vfio-user, on either side: messages that are right, nearly right, or noise, in pieces of any size, replies to nothing, floods, and ends at
 * any moment. No error escapes, no memory but the guest's own changes, and the next peer is served. Repeats by seed.
 */

import { NonrootError } from '@nonroot/contracts'
import type { BlockingStream, DeviceDefinition } from '@nonroot/contracts'
import passthrough, { RemoteFunction, RemoteMemory, VfioUserServer } from '@nonroot/io-pci-passthrough'
import {
  benchDevice,
  createDeviceBench,
  createRandom,
  createStreamPair,
  createTestGuestMemory,
  createTestHostMemory,
  createTestLog,
  fieldsOf,
  messageBytes,
  MockVfioUserServer,
  RawPeer,
  versionBody,
  VfioUser,
} from '@nonroot/testkit'
import type { Field, MockAnswer } from '@nonroot/testkit'
import { benchHost, GuestNvme } from './assigned-host.ts'

type Random = (below: number) => number
const definition = passthrough.devices!.find(({ kind }) => kind === 'vfio-user')! as DeviceDefinition
const SILENT_MS = 20
const COMMANDS = [...Object.values(VfioUser), 0, 14, 200]
const RAM = 1 << 20

async function settle(): Promise<void> {
  for (let turn = 0; turn < 40; turn++) await Promise.resolve()
}

/** Of the size that is asked for, more or less. */
function noise(random: Random, size: number): Uint8Array {
  const length = random(3) === 0 ? random(80) : size
  return Uint8Array.from({ length }, () => (random(2) === 0 ? 0 : random(256)))
}

const numbers = (random: Random): number =>
  [0, 1, 2, 4, 8, 16, 20, 24, 32, 256, 4096, RAM - 2, RAM, 2 ** 31, 2 ** 32 - 1, 2 ** 52, random(RAM), random(2 ** 32)][
    random(18)
  ]!

/** A body with the fields of a command, each of them anything. */
function body(random: Random, command: number): Uint8Array {
  const any = (...sizes: readonly (4 | 8)[]): Uint8Array =>
    fieldsOf(...sizes.map((size): Field => [size, size === 4 ? numbers(random) % 2 ** 32 : numbers(random)]))
  const data = new Uint8Array(random(3) === 0 ? random(5000) : random(17))
  switch (command) {
    case VfioUser.version:
      return versionBody(random(8) === 0 ? 1 : 0, random(3), {
        capabilities: { max_data_xfer_size: numbers(random), interrupt_messages: random(2) === 0 },
      })
    case VfioUser.dmaMap:
      return fieldsOf([4, 32], [4, random(4)], [8, 0], [8, random(4) * 0x1_0000], [8, numbers(random)])
    case VfioUser.dmaUnmap:
      return any(4, 4, 8, 8)
    case VfioUser.regionRead:
    case VfioUser.regionWrite: {
      const count =
        command === VfioUser.regionWrite ? data.length : random(4) === 0 ? numbers(random) % 2 ** 32 : 1 << random(4)
      return new Uint8Array([
        ...fieldsOf(
          [8, random(2) === 0 ? random(0x1040) : numbers(random)],
          [4, random(4) === 0 ? random(10) : [0, 7][random(2)]!],
          [4, count],
        ),
        ...(command === VfioUser.regionWrite ? data : []),
      ])
    }
    case VfioUser.dmaRead:
      return any(8, 8)
    case VfioUser.dmaWrite:
      return new Uint8Array([
        ...fieldsOf([8, numbers(random)], [8, random(4) === 0 ? numbers(random) : data.length]),
        ...data,
      ])
    case VfioUser.deviceSetIrqs:
      return fieldsOf(
        [4, 20],
        [4, (1 << random(3)) | (8 << random(3))],
        [4, random(6)],
        [4, random(20)],
        [4, random(20)],
      )
    case VfioUser.interrupt:
      return fieldsOf([4, numbers(random) % 2 ** 32])
    case VfioUser.deviceReset:
      return new Uint8Array(random(8) === 0 ? 4 : 0)
    default:
      return any(4, 4, 4, 4, ...(random(2) === 0 ? ([8, 8] as const) : []))
  }
}

/** Says something. */
function attack(peer: RawPeer, random: Random): void {
  const command = COMMANDS[random(COMMANDS.length)]!
  const made = random(10) === 0 ? noise(random, 32) : body(random, command)
  const flags = [0, 0, 0, 0, 0, 0x10, 1, 0x21, random(16)][random(9)]!
  const size = random(60) === 0 ? numbers(random) % 2 ** 32 : 16 + made.length
  const bytes = messageBytes(
    { id: random(5), command, flags: random(12) === 0 ? flags : flags & 0x10, error: 0, body: made },
    size,
  )
  if (random(4) > 0) return peer.sendBytes(bytes)
  const cut = random(bytes.length)
  peer.sendBytes(bytes.subarray(0, cut))
  if (random(30) > 0) peer.sendBytes(bytes.subarray(cut))
}

// Hostile clients

/** Attacks one server with many clients, and lets a good one work after each. Gives how many there were, and why they ended. */
export async function fuzzClients(seed: number, clients = 12, steps = 60): Promise<ReadonlyMap<string, number>> {
  const random = createRandom(seed)
  const memory = new RemoteMemory()
  const { machine, settle: turn, disks, memory: hostMemory } = await benchHost({ iommu: false, dma: memory })
  const host = { bus: machine.bus, interrupt: (handler: () => void) => machine.interrupts.allocate(handler) }
  const owned = await machine.take('01:00.0', 'client')
  const server = new VfioUserServer(host, owned, memory, { log: createTestLog() })
  const before = hostMemory.bytes.slice()
  const reasons = new Map<string, number>()
  const serve = (): { readonly stream: BlockingStream; readonly ended: Promise<string> } => {
    const [stream, theirs] = createStreamPair()
    return { stream, ended: server.serve(theirs) }
  }
  for (let client = 0; client < clients; client++) {
    const { stream, ended } = serve()
    const peer = new RawPeer(stream)
    const ram = new Uint8Array(RAM)
    peer.onCommand = (message) => {
      // It answers right, wrong, or not at all.
      if (random(40) === 0) return
      if (random(40) === 0) return peer.reply(message, noise(random, 16))
      if (message.command === VfioUser.dmaRead) {
        const count = Number(new DataView(message.body.buffer, message.body.byteOffset).getBigUint64(8, true))
        for (let at = 0; at < 64; at++) ram[random(RAM)] = random(256)
        peer.reply(message, new Uint8Array([...message.body, ...ram.subarray(0, count)]))
      } else peer.reply(message, message.body.slice(0, 16))
    }
    if (random(8) > 0)
      peer.send({ command: VfioUser.version, body: versionBody(0, 0, { capabilities: { interrupt_messages: true } }) })
    if (random(4) > 0)
      peer.send({ command: VfioUser.dmaMap, body: fieldsOf([4, 32], [4, 3], [8, 0], [8, 0], [8, RAM]) })
    for (let step = 0; step < steps && !peer.closed; step++) {
      attack(peer, random)
      if (random(4) === 0) await settle()
      if (random(16) === 0) disks[0]!.hold = !disks[0]!.hold
    }
    peer.close()
    disks[0]!.go()
    await turn()
    const reason = (await ended).replaceAll(/\d+/g, 'N')
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1)
  }
  if (Buffer.compare(hostMemory.bytes, before) !== 0)
    throw new Error(`seed ${seed}: memory of the server's host has changed`)
  const { stream } = serve()
  const guestMemory = createTestGuestMemory({ hostMemory: createTestHostMemory(512), ram: RAM })
  const { bench } = await benchDevice(definition, { socket: '/good' }, { guestMemory, backends: { stream } })
  const { description } = bench.functions[0]!
  description.onCommand!(6)
  const nvme = new GuestNvme(description.bars![0]!.handler, guestMemory)
  nvme.start()
  nvme.issue(2, 7, 0x4_0000)
  for (let wait = 0; wait < 20; wait++) await turn()
  if (nvme.completion() !== 0) throw new Error(`seed ${seed}: a good client is not served`)
  return reasons
}

// Hostile servers

/** Attacks one guest's function. Gives whether it was accepted at first. */
export async function fuzzServer(seed: number, steps = 120): Promise<'refused' | 'accepted'> {
  const random = createRandom(seed)
  const hostMemory = createTestHostMemory(512)
  const guestMemory = createTestGuestMemory({ hostMemory, ram: RAM })
  guestMemory.fill(0, RAM, 0x55)
  const before = hostMemory.bytes.slice()
  const [ours, theirs] = createStreamPair()
  const server = new MockVfioUserServer(theirs)
  const isHostileEarly = random(2) === 0
  for (const command of Object.values(VfioUser)) {
    server.answers.set(command, (message): MockAnswer => {
      if (isHostileEarly ? random(12) > 0 : random(60) > 0)
        return command === VfioUser.interrupt ? undefined : server.answer(message)
      if (random(3) === 0) attack(server.peer, random)
      return [random(200), noise(random, 32), undefined, server.answer(message)][random(4)]
    })
  }
  const bench = createDeviceBench({ guestMemory, backends: { stream: ours } })
  const device = await RemoteFunction.create({ socket: '/bad' }, bench.context, SILENT_MS).catch((error: unknown) => {
    if (!(error instanceof NonrootError)) throw error
  })
  if (device) {
    const { description } = bench.functions[0]!
    const handlers = Object.values(description.bars!).map(({ handler }) => handler)
    for (let step = 0; step < steps; step++) {
      const handler = handlers[random(handlers.length)]
      const size = [1, 2, 4][random(3)] as 1 | 2 | 4
      const value = random(2) === 0 ? handler?.read(random(4096), size) : undefined
      if (value !== undefined && value !== -1 && !(value >= 0 && value < 2 ** (8 * size)))
        throw new Error(`seed ${seed}: a register reads ${value}`)
      handler?.write(random(4096), size, random(2 ** 32))
      if (random(3) === 0) attack(server.peer, random)
      if (random(20) === 0) device.reset()
      if (random(3) === 0) await settle()
    }
    server.peer.close()
    await settle()
    for (const handler of handlers)
      if (handler.read(0, 4) !== 0xffff_ffff) throw new Error(`seed ${seed}: registers of a server that has gone`)
    device.dispose()
  }
  const mine = new Set<number>()
  for (let at = 0; at < RAM; at += 4096) mine.add(guestMemory.peek(at)! >>> 12)
  for (let frame = 0; frame < before.length >>> 12; frame++) {
    const [at, end] = [frame << 12, (frame + 1) << 12]
    if (!mine.has(frame) && Buffer.compare(hostMemory.bytes.subarray(at, end), before.subarray(at, end)) !== 0)
      throw new Error(`seed ${seed}: frame ${frame}, which is not the guest's, has changed`)
  }
  return device ? 'accepted' : 'refused'
}
