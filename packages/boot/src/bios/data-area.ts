/** The BIOS data area and the extended one, as a BIOS leaves them, for guests that read them without calling a BIOS. (Phoenix, "System BIOS for IBM PCs", "BIOS Data Area") */
import type { BootMachine } from '@nonroot/contracts'
import { BASE_MEMORY_END, EBDA_LENGTH, type Placement } from '../placement.ts'
import { Structure } from '../structure.ts'

const AREA = 0x400
const AREA_LENGTH = 0x100
/** Offsets in the area. */
const AT = {
  com: 0x00,
  ebdaSegment: 0x0e,
  equipment: 0x10,
  baseMemoryKib: 0x13,
  keyboardHead: 0x1a,
  keyboardTail: 0x1c,
  videoMode: 0x49,
  columns: 0x4a,
  screenBytes: 0x4c,
  crtController: 0x63,
  keyboardStart: 0x80,
  keyboardEnd: 0x82,
  rowsLess1: 0x84,
  characterHeight: 0x85,
} as const
const EQUIPMENT = { coprocessor: 0x02, colour80Columns: 0x20, serialShift: 9 } as const
const KEYBOARD_BUFFER = { start: 0x1e, end: 0x3e } as const
const MOST_COM = 4

/** Gives where the EBDA is; undefined where there is no memory for it. */
export function placeBiosDataArea(
  placement: Placement,
  { guestMemory, platform }: Pick<BootMachine, 'guestMemory' | 'platform'>,
): number | undefined {
  const serial = (platform.serial ?? []).slice(0, MOST_COM)
  const ebda = guestMemory.isRam(BASE_MEMORY_END, EBDA_LENGTH) ? BASE_MEMORY_END : undefined
  const area = new Structure(AREA_LENGTH)
  serial.forEach(({ port }, index) => area.u16(AT.com + 2 * index, port))
  const video = platform.vga === true ? EQUIPMENT.colour80Columns : 0
  area
    .u16(AT.equipment, EQUIPMENT.coprocessor | video | (serial.length << EQUIPMENT.serialShift))
    .u16(AT.baseMemoryKib, (placement.ram[0]?.start === 0 ? placement.ram[0].end : 0) / 1024)
    .u16(AT.keyboardHead, KEYBOARD_BUFFER.start)
    .u16(AT.keyboardTail, KEYBOARD_BUFFER.start)
    .u16(AT.keyboardStart, KEYBOARD_BUFFER.start)
    .u16(AT.keyboardEnd, KEYBOARD_BUFFER.end)
  if (video) {
    area.u8(AT.videoMode, 3).u16(AT.columns, 80).u16(AT.screenBytes, 0x1000).u16(AT.crtController, 0x3d4)
    area.u8(AT.rowsLess1, 24).u16(AT.characterHeight, 16)
  }
  if (ebda !== undefined) {
    area.u16(AT.ebdaSegment, ebda / 16)
    guestMemory.writeBytes(ebda, Uint8Array.of(EBDA_LENGTH / 1024))
  }
  // A kernel that is loaded there knows what it does.
  if (placement.isFree(AREA, AREA_LENGTH)) placement.put('BIOS data area', AREA, area.bytes)
  return ebda
}
