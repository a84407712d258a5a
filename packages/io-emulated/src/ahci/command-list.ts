/** Reads and checks a guest's command list: headers, tables and regions. All accesses to them go through here. Independent of registers and disks. */

import type { DmaMemory, MemoryPiece } from '@nonroot/contracts'
import { GuestBuffer } from '../ata/buffer.ts'
import type { DataBuffer } from '../ata/buffer.ts'
import type { Registers } from '../ata/disk.ts'
import { FisType, Header, HeaderFlag, HEADER_SIZE, HostFis, IS_COMMAND, REGION_BYTES, Table } from './registers.ts'

export interface SlotCommand {
  /** The command register was written; otherwise the control register (soft reset). */
  readonly isCommand: boolean
  readonly control: number
  readonly registers: Registers
  readonly data: DataBuffer
  /** Where the count of bytes is reported (PRDBC). */
  readonly transferredAt: number
}

/** High words from here on make a number that is not exact; no memory is there. */
const HIGH_END = 2 ** 21

export class CommandList {
  readonly #memory: DmaMemory
  readonly #header = new DataView(new ArrayBuffer(HEADER_SIZE))
  readonly #fis = new Uint8Array(HostFis.size)

  constructor(memory: DmaMemory) {
    this.#memory = memory
  }

  /** The command in a slot. `hostBus`: some of it is not in RAM. `malformed`: no register FIS. */
  read(base: number, slot: number): SlotCommand | 'hostBus' | 'malformed' {
    const at = base + slot * HEADER_SIZE
    const header = this.#header
    if (!this.#memory.readBytes(at, new Uint8Array(header.buffer))) return 'hostBus'
    const flags = header.getUint32(Header.flags, true)
    const high = header.getUint32(Header.table + 4, true)
    const table = high * 2 ** 32 + ((header.getUint32(Header.table, true) & ~0x7f) >>> 0)
    const fis = this.#fis
    if (high >= HIGH_END || !this.#memory.readBytes(table, fis)) return 'hostBus'
    const dwords = flags & HeaderFlag.length
    if (dwords * 4 < HostFis.size || fis[HostFis.type] !== FisType.hostToDevice) return 'malformed'
    const pieces = this.#regions(table + Table.regions, flags >>> HeaderFlag.entries)
    if (!pieces) return 'hostBus'
    return {
      isCommand: (fis[HostFis.flags]! & IS_COMMAND) !== 0,
      control: fis[HostFis.control]!,
      registers: registersOf(fis),
      data: new GuestBuffer(this.#memory, pieces),
      transferredAt: at + Header.transferred,
    }
  }

  /** Physical region descriptors. Whether they are RAM is checked where they are used: a command may need only the first. */
  #regions(at: number, entries: number): MemoryPiece[] | undefined {
    const bytes = new Uint8Array(entries * Table.region)
    if (!this.#memory.readBytes(at, bytes)) return undefined
    const view = new DataView(bytes.buffer)
    const pieces: MemoryPiece[] = []
    for (let entry = 0; entry < bytes.length; entry += Table.region) {
      const high = view.getUint32(entry + 4, true)
      if (high >= HIGH_END) return undefined
      // Bit 0 is always 1 in a count less one; of the address it is 0.
      const length = (view.getUint32(entry + 12, true) & REGION_BYTES & ~1) + 2
      pieces.push({ address: high * 2 ** 32 + ((view.getUint32(entry, true) & ~1) >>> 0), length })
    }
    return pieces
  }
}

function registersOf(fis: Uint8Array): Registers {
  const byte = (at: number): number => fis[at]!
  const low = byte(HostFis.lba) | (byte(HostFis.lba + 1) << 8) | (byte(HostFis.lba + 2) << 16)
  const high = byte(HostFis.lbaHigh) | (byte(HostFis.lbaHigh + 1) << 8) | (byte(HostFis.lbaHigh + 2) << 16)
  return {
    command: byte(HostFis.command),
    features: byte(HostFis.features) | (byte(HostFis.featuresHigh) << 8),
    lba: high * 2 ** 24 + low,
    count: byte(HostFis.count) | (byte(HostFis.countHigh) << 8),
    device: byte(HostFis.device),
  }
}
