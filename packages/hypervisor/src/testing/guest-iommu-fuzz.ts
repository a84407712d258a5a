/**
 * A hostile guest that programs its own IOMMU at random: registers, root and context tables, second-level tables with cycles, reserved bits and addresses
 * in BARs, the invalidation queue, the remapping table. Whatever it does, nothing outside its memory changes, nothing is thrown, and each DMA goes where
 * a second reading of the tables says. Repeats by seed.
 */

import { gpa } from '@nonroot/contracts'
import { createRandom } from '@nonroot/testkit'
import { benchHost, MIB } from './assigned-host.ts'
import { guestPc } from './guest-pc.ts'
import { expectedTranslation } from './iommu-reference.ts'
import { Probe, probeDevice, ProbeCommand } from './probe.ts'

const IOMMU = 0xfed9_0000
const RAM = 4 * MIB
/** Tables are in few pages, so that they share and overlap. */
const TABLES = { start: 0x10_0000, pages: 24 } as const
const QUEUE = 0x18_0000
const REGISTERS = [
  ...[0x18, 0x20, 0x24, 0x28, 0x2c, 0x34, 0x38, 0x3c, 0x40, 0x44, 0x80, 0x88, 0x90, 0x94, 0x9c, 0xa0, 0xa4, 0xa8, 0xac],
  ...[0xb8, 0xbc, 0x100, 0x104, 0x108, 0x10c, 0x20c, 0x21c],
]
const Global = {
  translation: 2 ** 31,
  rootTable: 2 ** 30,
  queue: 2 ** 26,
  interrupts: 2 ** 25,
  table: 2 ** 24,
} as const

/** Gives how many DMAs were compared, and how many of those reached memory. Throws if something got out, or went elsewhere. */
export async function fuzzGuestIommu(
  seed: number,
  steps = 600,
): Promise<{ readonly compared: number; readonly reached: number }> {
  const random = createRandom(seed)
  const { memory, vm } = await benchHost({ devices: [] })
  const { guestMemory } = vm('hostile')
  vm('victim').guestMemory.fill(0, 0x9_0000, 0x77)
  const { bus, contexts } = await guestPc(guestMemory, undefined, true)
  const probe = probeDevice()
  await probe.create({} as never, contexts.deviceContext('probe0', '/'))
  const config = 0xe000_0000 + 8 * 4096
  const put = (at: number, value: number): void => void bus.writeMmio(gpa(at), 4, value >>> 0)
  put(config + 4, 6)
  const registers = (bus.readMmio(gpa(config + 0x10), 4) & ~15) >>> 0
  const requester = 1 << 3

  // Every page has its frame from the start: one that is zeroed untouched would have none.
  for (const { start, length } of guestMemory.regions) {
    guestMemory.fill(start, length, 1)
    guestMemory.fill(start, length, 0)
  }
  const mine = new Set<number>()
  for (let at = 0; at < RAM; at += 4096) mine.add((guestMemory.peek(at) ?? 0) >>> 12)
  const before = memory.bytes.slice()

  const page = (): number => TABLES.start + random(TABLES.pages) * 4096
  const address = (): number => {
    switch (random(8)) {
      case 0:
        return registers
      case 1:
        return [IOMMU, 0xfee0_0000, 0xe000_0000, RAM - 4096, RAM, 2 ** 32, 2 ** 40 - 4096, 2 ** 51][random(8)]!
      case 2:
        return random(RAM / 4096) * 4096
      default:
        return page()
    }
  }
  /** An entry of any table: mostly what works, sometimes a bit that must not be set. */
  const entry = (): bigint => {
    let value = BigInt(address()) | BigInt(random(8) === 0 ? random(4) : 3)
    if (random(6) === 0) value |= 0x80n
    if (random(12) === 0) value |= 1n << BigInt(random(64))
    return value
  }
  const write = (register: number, value: number): void => put(IOMMU + register, value)
  const command = (): void =>
    write(
      0x18,
      [Global.rootTable, Global.table, 0, 0][random(4)]! +
        (random(8) ? Global.translation : 0) +
        (random(4) ? Global.queue : 0) +
        (random(2) ? Global.interrupts : 0),
    )
  const forget = (): void => {
    write(0x2c, 0xa000_0000)
    write(0x10c, 0x9000_0000)
  }
  let root = page()
  const setRoot = (at: number): void => {
    write(0x20, at)
    write(0x24, Math.floor(at / 2 ** 32))
    write(0x18, Global.rootTable + Global.translation)
    root = at
  }
  setRoot(root)
  /** Mostly through the first entries of each level, which are the ones that are written most. */
  const target = (): number => {
    if (random(4) === 0) return address() + random(1024) * 4
    let at = random(1024) * 4
    for (let level = 0; level < 4; level++) at += random(2) * 2 ** (12 + 9 * level)
    return at
  }
  /** A root and a context that lead to tables. */
  const lead = (): void => {
    setRoot(page())
    const contexts = page()
    guestMemory.writeU64(root, BigInt(contexts) | 1n)
    guestMemory.writeU64(root + 8, 0n)
    guestMemory.writeU64(contexts + requester * 16, BigInt(page()) | 1n)
    guestMemory.writeU64(contexts + requester * 16 + 8, BigInt(1 + random(2)) | (BigInt(random(4)) << 8n))
  }

  let [compared, reached] = [0, 0]
  for (let step = 0; step < steps; step++) {
    switch (random(9)) {
      case 0:
        write(REGISTERS[random(REGISTERS.length)]!, random(2) ? random(2 ** 32) : address())
        break
      case 1:
        command()
        break
      case 2:
        for (let slot = 0; slot < 32; slot++) {
          const at = QUEUE + 16 * random(256)
          guestMemory.writeU32(
            at,
            random(8) ? [0x11, 0x12, 0x21, 0x22, 0x32, 0x31, 4, 0x25, 0x15, 3][random(10)]! : random(2 ** 32),
          )
          for (let word = 4; word < 16; word += 4) guestMemory.writeU32(at + word, random(3) ? 0 : random(2 ** 32))
          guestMemory.writeU32(at + 8, address())
        }
        write(0x90, QUEUE | random(8))
        command()
        write(0x88, random(256) << 4)
        write(0x34, 0x70)
        break
      case 3:
        // Entries of the remapping table, and messages to them.
        write(0xb8, page() | random(16) | (random(2) << 11))
        command()
        put(registers + Probe.address, 0xfee0_0000 + random(2 ** 20))
        put(registers + Probe.upper, 0)
        put(registers + Probe.data, random(2 ** 16))
        put(registers + Probe.command, ProbeCommand.write)
        break
      default:
        for (let count = 0; count < 16; count++) {
          const at = page()
          for (const slot of [0, 1, random(512), requester * 2, requester * 2 + 1])
            guestMemory.writeU64(at + 8 * slot, entry())
        }
    }
    // A DMA with whatever is cached, then one with nothing cached, which the tables alone decide.
    const kind = random(2) ? ProbeCommand.write : ProbeCommand.read
    const at = target()
    const dma = (): number => {
      put(registers + Probe.address, at % 2 ** 32)
      put(registers + Probe.upper, Math.floor(at / 2 ** 32))
      put(registers + Probe.data, step)
      put(registers + Probe.result, 0)
      put(registers + Probe.command, kind)
      return bus.readMmio(gpa(registers + (kind === ProbeCommand.write ? Probe.result : Probe.data)), 4)
    }
    dma()
    if (at >= 0xfee0_0000 && at < 0xfef0_0000) continue
    write(0x18, Global.rootTable + Global.translation)
    if (random(4)) lead()
    else setRoot(page())
    forget()
    const to = expectedTranslation(guestMemory, { root, requester, address: at, write: kind === ProbeCommand.write })
    const ram = to !== undefined && guestMemory.isRam(to, 4)
    const wanted = ram ? (guestMemory.readU32(to) as number) : 0xffff_ffff
    const got = dma()
    compared++
    if (ram) reached++
    const now = ram ? guestMemory.readU32(to) : undefined
    const right = kind === ProbeCommand.write ? got === (ram ? 1 : 0) && (!ram || now === step) : got === wanted
    if (!right)
      throw new Error(
        `seed ${seed}, step ${step}: DMA ${kind === ProbeCommand.write ? 'to' : 'from'} 0x${at.toString(16)} gave ${got}, the tables say ${to === undefined ? 'nothing' : `0x${to.toString(16)}`}`,
      )
  }
  for (let frame = 0; frame < before.length >>> 12; frame++) {
    if (mine.has(frame)) continue
    const [start, end] = [frame << 12, (frame + 1) << 12]
    if (Buffer.compare(memory.bytes.subarray(start, end), before.subarray(start, end)) !== 0)
      throw new Error(`seed ${seed}: frame 0x${frame.toString(16)}, which is not the guest's, has changed`)
  }
  return { compared, reached }
}
