/** Reset, save and restore of the remapping unit, judged by registers, DMA, messages and memory. */

import { testState } from '@nonroot/testkit'
import type { StateSubject } from '@nonroot/testkit'
import { it } from 'vitest'
import { Register } from './facts.ts'
import { benchVtd, Place, R, W } from '../testing/vtd.ts'

const DEVICES = [0x0108, 0x0109, 0x0208] as const
/** What is mapped, at guest addresses that are no RAM. */
const MAPPED = 0x40_0000
const DATA = 0x8_0000
const DATA_PAGES = 8
const SIZE = 1 << 20

const COMMANDS = [
  0,
  2 ** 26,
  2 ** 31,
  2 ** 31 + 2 ** 26,
  2 ** 31 + 2 ** 30 + 2 ** 26,
  2 ** 25 + 2 ** 24,
  2 ** 31 + 2 ** 26 + 2 ** 25 + 2 ** 23,
]
/** What software writes, by register: values that mean something. */
const WRITES: readonly (readonly [register: number, values: readonly number[]])[] = [
  [Register.command, COMMANDS],
  [Register.command, COMMANDS],
  [Register.rootTable, [Place.root, Place.root, 0x9_0000, SIZE]],
  [Register.remappingTable, [Place.remapping | 3, Place.remapping | 7, Place.remapping | (1 << 11) | 3, 0x4]],
  [Register.queueAddress, [Place.queue, Place.queue, Place.queue | 1]],
  [Register.queueTail, [0x10, 0x40, 0x100, 0xff0]],
  [Register.faultStatus, [1, 0x10, 0x71]],
  [Register.faultControl, [0, 2 ** 31]],
  [Register.faultData, [0x30, 0x31]],
  [Register.faultAddress, [0xfee0_0000, 0xfee0_1000]],
  [Register.completionStatus, [1]],
  [Register.completionControl, [0, 2 ** 31]],
  [Register.completionData, [0x40, 0x41]],
  [Register.completionAddress, [0xfee0_2000]],
  [Register.invalidateAddress, [MAPPED, MAPPED | 3]],
  [Register.contextCommand + 4, [2 ** 31 + 2 ** 29, 2 ** 31 + 2 ** 30]],
  [Register.invalidateCommand + 4, [2 ** 31 + 2 ** 28, 2 ** 31 + 2 ** 29]],
  [Register.faults + 12, [2 ** 31]],
  [Register.faults + 28, [2 ** 31]],
]

class UnitSubject implements StateSubject {
  readonly #made = benchVtd()
  readonly #dma = DEVICES.map((id) => this.#made.device(id))
  #seen = 0

  constructor() {
    const { context, map, entry, table, memory } = this.#made
    const root = table()
    context(DEVICES[0], root)
    context(DEVICES[2], root, { domain: 2, quiet: 1 })
    for (let page = 0; page < DATA_PAGES; page++)
      map(root, MAPPED + 4096 * page, DATA + 4096 * page, page % 4 === 3 ? R : R | W)
    for (let index = 0; index < 16; index++)
      entry(
        index,
        1 | (index % 4 === 3 ? 1 << 15 : 0) | ((0x50 + index) << 16),
        index % 4 === 3 ? Place.posted : index << 8,
        DEVICES[index % 3]! | (1 << 18),
      )
    memory.writeU32(Place.posted + 32, 0xf2 << 16)
    for (let slot = 0; slot < 256; slot++) {
      const words = [
        [0x11],
        [0x12],
        [2 | (2 << 4) | (1 << 16)],
        [5 | (1 << 5), slot, Place.status],
        [5 | (1 << 4)],
        [4],
        [slot % 64 === 63 ? 0xf : 4],
      ][slot % 7]!
      words.forEach((word, part) => memory.writeU32(Place.queue + 16 * slot + 4 * part, word))
    }
  }

  get #registers(): number[] {
    const { read } = this.#made
    return Array.from({ length: 0x290 / 4 }, (_, word) => read(4 * word))
  }

  step(random: (below: number) => number): unknown {
    const { write, messages, delivered, memory } = this.#made
    const of = random(3)
    const dma = this.#dma[of]!
    const address = (random(3) === 0 ? DATA : MAPPED) + random(DATA_PAGES + 1) * 4096 + 4 * random(4)
    const seen: unknown[] = []
    switch (random(6)) {
      case 0:
      case 1: {
        const [register, values] = WRITES[random(WRITES.length)]!
        const value = values[random(values.length)]!
        write(register, value)
        // What was cached under another root is software's to invalidate.
        if (register === Register.command) {
          write(Register.contextCommand + 4, 2 ** 31 + 2 ** 29)
          write(Register.invalidateCommand + 4, 2 ** 31 + 2 ** 28)
        }
        seen.push('write', register, value)
        break
      }
      case 2:
        seen.push('dma read', of, address, dma.readU32(address))
        break
      case 3:
        seen.push('dma write', of, address, dma.writeU32(address, random(2 ** 32)))
        break
      case 4: {
        const format = random(4) === 0 ? 0xfee0_3000 : 0xfee0_0010 + (random(20) << 5)
        messages.send(format, random(256), DEVICES[of])
        seen.push('message', of, format)
        break
      }
      default:
        seen.push(
          'status',
          memory.readU32(Place.status),
          memory.readU32(Place.posted + 8),
          memory.readU32(Place.posted + 32),
        )
    }
    const sent = delivered.slice(this.#seen)
    this.#seen = delivered.length
    return [...seen, sent, this.#registers]
  }

  get #unit() {
    return this.#made.model.devices!.get('unit')!
  }
  reset(): void {
    this.#unit.reset!()
  }
  save(): unknown {
    return this.#unit.save!()
  }
  restore(saved: unknown): void {
    this.#unit.restore!(saved as never)
  }
  surround(other: this): void {
    const bytes = new Uint8Array(SIZE)
    other.#made.memory.readBytes(0, bytes)
    this.#made.memory.writeBytes(0, bytes)
    this.#seen = this.#made.delivered.length
  }
}

testState('the remapping unit', () => new UnitSubject(), it)
