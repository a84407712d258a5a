/**
 * A hostile guest that programs its assigned function at random, beside a VM with a function of its own: whatever it does, no byte outside its own memory
 * changes (compared with a copy), the other VM's function works, and the function goes back clean. Repeats by seed.
 */

import { HOST_MMIO } from '@nonroot/contracts'
import { createRandom } from '@nonroot/testkit'
import { benchHost, GuestNvme, MIB } from './assigned-host.ts'

const BAR_REGISTERS = [
  0x0c, 0x10, 0x14, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x34, 0x1000, 0x1004, 0x1008, 0x100c, 0x1010, 0x1014,
]
const { place } = GuestNvme
const WATCHED = 0x8_0000

/** Gives what was done, in numbers. Throws if something got out. */
export async function fuzzAssigned(
  seed: number,
  steps = 400,
): Promise<{ readonly completions: number; readonly signals: number }> {
  const random = createRandom(seed)
  const host = await benchHost({
    devices: [
      { kind: 'nvme', at: '01:00.0' },
      { kind: 'nvme', at: '02:00.0' },
    ],
  })
  const { memory, machine, settle } = host
  const [vm, victim] = [host.vm('hostile'), host.vm('victim')]
  victim.guestMemory.fill(0, 0x9_0000, 0x77)
  const theirs = await victim.assign('02:00.0')
  theirs.bench.functions[0]!.description.onCommand!(6)
  theirs.nvme.start()
  await settle()
  const own = await vm.assign('01:00.0')
  const { description, signals } = own.bench.functions[0]!
  description.onCommand!(6)
  own.nvme.start()
  await settle()

  // Frames of the guest's, and the descriptor that its own interrupts are posted to, which is empty whenever all has settled.
  const mine = new Set<number>()
  for (let at = 0; at < 4 * MIB; at += 4096) mine.add((vm.guestMemory.peek(at) ?? 0) >>> 12)
  const before = memory.bytes.slice()
  const address = (): number => {
    const offset = random(2) === 0 ? 0 : random(4096)
    switch (random(8)) {
      case 0:
        return HOST_MMIO.start + 0xc000_0000 + random(0x1_0000)
      case 1:
        return 0xfee0_0000 + random(0x1000)
      case 2:
        return victim.guestMemory.peek(random(64) * 4096)! + offset
      case 3:
        return 4 * MIB - 4096 + random(0x4000)
      case 4:
        return 2 ** (12 + random(52)) - random(4096)
      case 5:
        return random(before.length)
      default:
        return random(1024) * 4096 + offset
    }
  }
  const low = (value: number): number => (value % 2 ** 32) >>> 0
  const write = (at: number, value: number): void => own.nvme.write(at, value)
  const fill = (at: number): void => {
    for (let entry = at; entry < at + 64; entry += 4)
      vm.guestMemory.writeU32(entry, random(4) === 0 ? random(2 ** 32) : 0)
    vm.guestMemory.writeU32(at, [0, 1, 2, 8, 9, 5, 6, random(256)][random(8)]! | (random(2 ** 16) << 16))
    vm.guestMemory.writeU32(at + 4, random(3))
    for (const prp of [24, 32]) vm.guestMemory.writeU64(at + prp, BigInt(Math.trunc(address())))
    vm.guestMemory.writeU32(at + 40, random(2100))
    vm.guestMemory.writeU32(at + 48, random(64))
  }
  let completions = 0
  for (let step = 0; step < steps; step++) {
    switch (random(12)) {
      case 0:
        write(BAR_REGISTERS[random(BAR_REGISTERS.length)]!, random(2) === 0 ? random(2 ** 32) : low(address()))
        break
      case 1:
        // Mostly a bus master: without it nothing can get out.
        description.onCommand!(random(4) === 0 ? random(8) : 6)
        break
      case 2: {
        const bar = description.bars![0]! as { onPlaced(at: number | undefined): void }
        bar.onPlaced(random(4) === 0 ? undefined : Math.floor(address() / 4096) * 4096)
        break
      }
      case 3:
        // Lists of PRPs in its memory.
        for (let entry = 0; entry < 64; entry++)
          vm.guestMemory.writeU64(0x2_0000 + 8 * entry, BigInt(Math.floor(address() / 4096) * 4096))
        break
      case 4:
        host.disks[0]!.hold = true
        break
      case 5:
        host.disks[0]!.go()
        break
      case 6:
        if (random(8) > 0) break
        own.device.reset!()
        if (random(2) === 0) description.onCommand!(6)
        break
      case 7:
        own.nvme.start(random(3) === 0 ? address() : place.completion)
        break
      default:
        for (let queue = 0; queue < 4; queue++) fill(place.submission + 64 * random(8))
        if (random(3) === 0) fill(place.adminSubmission + 64 * random(8))
        write(0x1000 + 8 * random(3), random(9))
    }
    own.nvme.read(BAR_REGISTERS[random(BAR_REGISTERS.length)]!)
    if (random(8) === 0) await settle()
  }
  host.disks[0]!.go()
  await own.device.quiesce!()
  await settle()
  completions += signals.length
  compare(memory.bytes, before, mine, seed)

  // The other VM never noticed.
  if (theirs.bench.functions[0]!.signals.length > 1) throw new Error(`seed ${seed}: the other VM was interrupted`)
  theirs.nvme.issue(2, 3, WATCHED)
  await settle()
  const sector = host.disks[1]!.bytes.subarray(3 * 512, 4 * 512)
  const got = new Uint8Array(512)
  victim.guestMemory.readBytes(WATCHED, got)
  if (theirs.nvme.completion() !== 0 || Buffer.compare(got, sector) !== 0)
    throw new Error(`seed ${seed}: the other VM's function does not work`)

  // What comes back is clean.
  await own.device.dispose!()
  if (machine.list()[0]!.owner !== undefined) throw new Error(`seed ${seed}: the function still has an owner`)
  vm.guestMemory.dispose()
  const next = await host.vm('next').assign('01:00.0')
  for (const register of [0x14, 0x1c, 0x24, 0x28, 0x30])
    if (next.nvme.read(register) !== 0) throw new Error(`seed ${seed}: register ${register} is the last owner's`)
  return { completions, signals: signals.length }
}

function compare(now: Uint8Array, before: Uint8Array, mine: ReadonlySet<number>, seed: number): void {
  for (let frame = 0; frame < before.length >>> 12; frame++) {
    if (mine.has(frame)) continue
    const [at, end] = [frame << 12, (frame + 1) << 12]
    if (Buffer.compare(now.subarray(at, end), before.subarray(at, end)) !== 0)
      throw new Error(`seed ${seed}: frame 0x${frame.toString(16)}, which is not the guest's, has changed`)
  }
}
