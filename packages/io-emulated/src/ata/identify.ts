/** IDENTIFY DEVICE data: the drive's description of itself. (ACS-2, "IDENTIFY DEVICE - ECh") */

import { BLOCK } from './facts.ts'

export interface Identity {
  readonly sectors: number
  readonly sectorSize: number
  /** Up to 20 characters. */
  readonly serial: string
  readonly trim: boolean
  readonly writeCache: boolean
  readonly lookAhead: boolean
  /** Selected Ultra DMA mode, 0 to 6, or -1. */
  readonly ultraDma: number
  /** The geometry that INITIALIZE DEVICE PARAMETERS chose, or the drive's own. */
  readonly heads: number
  readonly sectorsPerTrack: number
  /** Entries of the command queue: 0 on a controller without queued commands. */
  readonly queueDepth: number
}

const MODEL = 'nonroot disk'
const FIRMWARE = '1.0'
/** Word numbers. */
const Word = {
  configuration: 0,
  cylinders: 1,
  heads: 3,
  sectorsPerTrack: 6,
  serial: 10,
  firmware: 23,
  model: 27,
  multiple: 47,
  capabilities: 49,
  capabilities2: 50,
  valid: 53,
  currentCylinders: 54,
  currentHeads: 55,
  currentSectorsPerTrack: 56,
  currentSectors: 57,
  sectors28: 60,
  multiwordDma: 63,
  pio: 64,
  cycleTimes: 65,
  queueDepth: 75,
  sata: 76,
  major: 80,
  supported: 82,
  enabled: 85,
  ultraDma: 88,
  sectors48: 100,
  trimBlocks: 105,
  sectorSize: 106,
  wordsPerSector: 117,
  trim: 169,
  rotation: 217,
  transport: 222,
  integrity: 255,
} as const
/** The geometry that a drive has until it is given another. */
export const HEADS = 16
export const SECTORS_PER_TRACK = 63
/** Blocks of trim ranges that one command may carry: 512 ranges. */
export const TRIM_BLOCKS = 8
const PHYSICAL_SECTOR = 4096
const WRITE_CACHE = 1 << 5
const LOOK_AHEAD = 1 << 6
const POWER_MANAGEMENT = 1 << 3
/** "Word valid" pattern in the words that have one. */
const VALID = 0x4000
/** LBA48, FLUSH CACHE, FLUSH CACHE EXT. */
const SUPPORTED2 = VALID | (1 << 10) | (1 << 12) | (1 << 13)
/** General purpose logging, WRITE DMA FUA EXT. */
const SUPPORTED3 = VALID | (1 << 5) | (1 << 6)
/** ATA/ATAPI-4 to ACS-2. */
const MAJOR = 0x03f0

export function identifyData(identity: Identity): Uint8Array {
  const bytes = new Uint8Array(BLOCK)
  const view = new DataView(bytes.buffer)
  const word = (number: number, value: number): void => view.setUint16(number * 2, value, true)
  const { sectors, sectorSize, queueDepth } = identity
  // Geometry for programs that still ask: capped where CHS ends.
  word(Word.configuration, 0x0040)
  word(Word.cylinders, cylindersOf(identity, HEADS * SECTORS_PER_TRACK, 16383))
  word(Word.heads, HEADS)
  word(Word.sectorsPerTrack, SECTORS_PER_TRACK)
  const perCylinder = identity.heads * identity.sectorsPerTrack
  const cylinders = cylindersOf(identity, perCylinder, 0xffff)
  word(Word.currentCylinders, cylinders)
  word(Word.currentHeads, identity.heads)
  word(Word.currentSectorsPerTrack, identity.sectorsPerTrack)
  view.setUint32(Word.currentSectors * 2, cylinders * perCylinder, true)
  text(bytes, Word.serial, 20, identity.serial)
  text(bytes, Word.firmware, 8, FIRMWARE)
  text(bytes, Word.model, 40, MODEL)
  word(Word.multiple, 0x8001)
  word(Word.capabilities, 0x0b00) // DMA, LBA, IORDY
  word(Word.capabilities2, VALID)
  word(Word.valid, 0x0007)
  view.setUint32(Word.sectors28 * 2, Math.min(sectors, 0x0fff_ffff), true)
  word(Word.multiwordDma, 0x0007)
  word(Word.pio, 0x0003)
  for (let cycle = 0; cycle < 4; cycle++) word(Word.cycleTimes + cycle, 120)
  if (queueDepth > 0) {
    word(Word.queueDepth, queueDepth - 1)
    word(Word.sata, 0x010e) // native command queuing; generations 1 to 3
    word(Word.transport, 0x107f) // serial, up to SATA 3.0
  }
  word(Word.major, MAJOR)
  word(Word.supported, POWER_MANAGEMENT | WRITE_CACHE | LOOK_AHEAD)
  word(Word.supported + 1, SUPPORTED2)
  word(Word.supported + 2, SUPPORTED3)
  word(Word.enabled, POWER_MANAGEMENT | (identity.writeCache ? WRITE_CACHE : 0) | (identity.lookAhead ? LOOK_AHEAD : 0))
  word(Word.enabled + 1, SUPPORTED2 & ~VALID)
  word(Word.enabled + 2, SUPPORTED3)
  word(Word.ultraDma, 0x007f | (identity.ultraDma >= 0 ? 1 << (8 + identity.ultraDma) : 0))
  view.setUint32(Word.sectors48 * 2, sectors >>> 0, true)
  view.setUint32(Word.sectors48 * 2 + 4, Math.floor(sectors / 2 ** 32), true)
  const perPhysical = Math.max(0, Math.log2(PHYSICAL_SECTOR / sectorSize))
  word(Word.sectorSize, VALID | (perPhysical > 0 ? 0x2000 | perPhysical : 0) | (sectorSize > BLOCK ? 0x1000 : 0))
  if (sectorSize > BLOCK) view.setUint32(Word.wordsPerSector * 2, sectorSize / 2, true)
  word(Word.rotation, 1) // none
  if (identity.trim) {
    word(Word.trimBlocks, TRIM_BLOCKS)
    word(Word.trim, 1)
  }
  bytes[Word.integrity * 2] = 0xa5
  // "The sum of all 512 bytes shall be zero"
  bytes[Word.integrity * 2 + 1] = -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff
  return bytes
}

const cylindersOf = ({ sectors }: Identity, perCylinder: number, most: number): number =>
  Math.max(1, Math.min(most, Math.floor(sectors / perCylinder)))

/** ATA strings: padded with spaces, the first character in the high byte. */
function text(bytes: Uint8Array, word: number, length: number, value: string): void {
  for (let at = 0; at < length; at++) {
    const code = value.charCodeAt(at)
    bytes[word * 2 + (at ^ 1)] = code >= 0x20 && code < 0x7f ? code : 0x20
  }
}
