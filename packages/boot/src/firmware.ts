/** Flat firmware at the reset vector: the image ends at 4 GiB, and its last 128 KiB are also visible below 1 MiB. Registers keep their power-up values. (SDM Vol. 3A, "First Instruction Executed") */
import { bytesOf } from '@nonroot/contracts'
import type { BootImage, BootMachine, BootProtocol, BootState, VcpuState } from '@nonroot/contracts'
import { offerAcpiFiles } from './acpi/firmware-files.ts'
import { badImage, hex, noRoom } from './errors.ts'
import { FOUR_GIBIBYTES, MEBIBYTE } from './placement.ts'

const SMALLEST = 0x1000
const LARGEST = 0x1000000 // 16 MiB: what chipsets decode below 4 GiB
const SHADOWED = 0x20000 // E0000..FFFFF
const RESET_VECTOR = 0x10 // bytes before the end

/** Where ROM must be for an image of this length, for the code that lays out memory. */
export const firmwareRom = (length: number): { start: number; length: number } => ({
  start: FOUR_GIBIBYTES - length,
  length,
})

export const createFirmware = (): BootProtocol<VcpuState> => ({
  load({ firmware: content }: BootImage, machine: BootMachine): BootState<VcpuState> {
    const { guestMemory } = machine
    if (!content)
      throw badImage('firmware', 'file', 'not given', 'name one: boot.firmware.image: /usr/share/seabios/bios-256k.bin')
    const { length } = content
    if (length < SMALLEST || length > LARGEST || length % SMALLEST !== 0) {
      throw badImage(
        'firmware',
        'size',
        length,
        'it should be a multiple of 4 KiB up to 16 MiB: the file is truncated or no flat image',
      )
    }
    const firmware = bytesOf(content)
    if (firmware.subarray(-RESET_VECTOR).every((byte) => byte === 0 || byte === 0xff)) {
      throw badImage(
        'firmware',
        'reset vector',
        'empty',
        'its last 16 bytes are the first instruction: give a flat PC firmware image',
      )
    }
    const { start } = firmwareRom(length)
    const shadow = firmware.subarray(-SHADOWED)
    const shadowStart = MEBIBYTE - shadow.length
    const places = [
      { what: 'firmware', start, data: firmware },
      { what: 'firmware below 1 MiB', start: shadowStart, data: shadow },
    ]
    for (const { what, start, data } of places) {
      if (!guestMemory.writeRom(start, data)) {
        throw noRoom(
          what,
          `ROM or RAM at ${hex(start)}..${hex(start + data.length)}`,
          'the machine maps none there: give it at least 1 MiB, and ROM below 4 GiB',
        )
      }
    }
    offerAcpiFiles(machine)
    return { registers: {}, placed: places.map(({ what, start, data }) => ({ what, start, length: data.length })) }
  },
})
