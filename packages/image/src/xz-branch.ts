/**
 * xz streams through the x86 branch filter (BCJ), as Linux compresses itself; xz-decompress was built without it. The stream is
 * rewritten to one without the filter and without a check, and filter and check are done here. (The .xz File Format, sections 2 to 5)
 */
import { type Bytes, alignUp, concatBytes, dataView, startsWith } from './bytes.ts'
import { invalidImage } from './errors.ts'

const X86 = 0x04
const LZMA2 = 0x21
const CHECK_SIZES = [0, 4, 4, 4, 8, 8, 8, 16, 16, 16, 32, 32, 32, 64, 64, 64]
const CRC32 = 1

const CRC_TABLE = Uint32Array.from({ length: 256 }, (_, byte) => {
  let crc = byte
  for (let bit = 0; bit < 8; bit++) crc = crc & 1 ? (crc >>> 1) ^ 0xedb88320 : crc >>> 1
  return crc
})

export function crc32(bytes: Bytes): number {
  let crc = 0xffffffff
  for (let i = 0; i < bytes.length; i++) crc = CRC_TABLE[(crc ^ bytes[i]!) & 0xff]! ^ (crc >>> 8)
  return ~crc >>> 0
}

const u32 = (value: number): Uint8Array => new Uint8Array(Uint32Array.of(value).buffer)
const withCrc = (body: Bytes): Uint8Array => concatBytes([body, u32(crc32(body))])
const padded = (bytes: Bytes): Uint8Array =>
  concatBytes([bytes, new Uint8Array(alignUp(bytes.length, 4) - bytes.length)])

/** A multibyte integer (section 1.2): value and where it ends. */
function readInteger(bytes: Bytes, at: number): [value: number, end: number] {
  let value = 0
  for (let shift = 1; ; shift *= 128) {
    const byte = bytes[at++] ?? 0
    value += (byte & 0x7f) * shift
    if (byte < 0x80 || shift > 2 ** 49) return [value, at]
  }
}

function integer(value: number): number[] {
  const bytes: number[] = []
  for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) | 0x80)
  return [...bytes, value]
}

/** True where the first block goes through the x86 filter. */
export const hasBranchFilter = (stream: Bytes): boolean =>
  startsWith(stream, [0xfd, 0x37, 0x7a, 0x58, 0x5a, 0]) && firstFilter(stream) === X86

function firstFilter(stream: Bytes): number | undefined {
  let at = 14
  if (((stream[13] ?? 0) & 0x40) !== 0) at = readInteger(stream, at)[1]
  if (((stream[13] ?? 0) & 0x80) !== 0) at = readInteger(stream, at)[1]
  return stream[at]
}

export interface Unfiltered {
  /** The same stream with LZMA2 as its only filter and no check. */
  readonly stream: Uint8Array<ArrayBuffer>
  /** Undoes the filter in place and checks. */
  finish(content: Bytes): Bytes
}

/** One block of x86 + LZMA2, which is what Linux's build makes. `stream` ends with its footer. */
export function withoutBranchFilter(stream: Bytes, file: string): Unfiltered {
  const bad = (field: string, value: unknown) =>
    invalidImage(file, `xz ${field}`, String(value), 'the file is truncated or corrupted: get it again')
  const footer = stream.length - 12
  if (footer < 24 || stream[footer + 10] !== 0x59 || stream[footer + 11] !== 0x5a) throw bad('footer', 'not there')
  const checkType = stream[7]! & 15
  const indexStart = footer - (dataView(stream).getUint32(footer + 4, true) + 1) * 4
  if (indexStart < 24 || stream[indexStart] !== 0) throw bad('index', `at ${indexStart}`)
  const [records, afterCount] = readInteger(stream, indexStart + 1)
  if (records !== 1) throw bad('count of blocks', `${records} (one is supported)`)
  const [unpaddedSize, afterUnpadded] = readInteger(stream, afterCount)
  const [contentSize] = readInteger(stream, afterUnpadded)
  const headerSize = (stream[12]! + 1) * 4
  const dataSize = unpaddedSize - headerSize - CHECK_SIZES[checkType]!
  const check = 12 + alignUp(headerSize + dataSize, 4)
  if (!(dataSize > 0 && check + CHECK_SIZES[checkType]! <= indexStart)) throw bad('block size', unpaddedSize)

  // Filter flags: id, size of properties, properties. LZMA2 has one property byte, the dictionary's size.
  let at = 14
  if ((stream[13]! & 0x40) !== 0) at = readInteger(stream, at)[1]
  if ((stream[13]! & 0x80) !== 0) at = readInteger(stream, at)[1]
  if (stream[at] !== X86 || stream[at + 1] !== 0 || stream[at + 2] !== LZMA2 || stream[at + 3] !== 1) {
    throw bad('filters', [...stream.subarray(at, at + 4)].map((byte) => byte.toString(16)).join(' '))
  }
  const header = withCrc(Uint8Array.of(2, 0, LZMA2, 1, stream[at + 4]!, 0, 0, 0))
  const data = stream.subarray(12 + headerSize, 12 + headerSize + dataSize)
  const index = withCrc(padded(Uint8Array.of(0, 1, ...integer(header.length + dataSize), ...integer(contentSize))))
  const tail = concatBytes([u32(index.length / 4 - 1), Uint8Array.of(0, 0)])
  return {
    stream: concatBytes([
      stream.subarray(0, 6),
      withCrc(Uint8Array.of(0, 0)),
      header,
      padded(data),
      index,
      u32(crc32(tail)),
      tail,
      Uint8Array.of(0x59, 0x5a),
    ]),
    finish(content) {
      undoBranchFilter(content)
      if (checkType === CRC32 && crc32(content) !== dataView(stream).getUint32(check, true)) throw bad('check', 'wrong')
      return content
    },
  }
}

/** Indexed by which of the last three bytes were branch opcodes: whether this byte may be one too, and which byte decides. */
const ALLOWED = [true, true, true, false, true, false, false, false]
const BIT_NUMBER = [0, 1, 2, 2, 3, 3, 3, 3]
const isMostSignificant = (byte: number): boolean => byte === 0 || byte === 0xff

/** CALL and JMP (E8, E9) hold absolute targets in the filtered data: back to relative. (xz, "BCJ filter for x86") */
export function undoBranchFilter(content: Bytes): void {
  const view = dataView(content)
  let previous = -1
  let mask = 0
  for (let i = 0; i < content.length - 4; i++) {
    if ((content[i]! & 0xfe) !== 0xe8) continue
    const distance = i - previous
    previous = i
    if (distance > 3) mask = 0
    else {
      mask = (mask << (distance - 1)) & 7
      if (mask !== 0 && (!ALLOWED[mask] || isMostSignificant(content[i + 4 - BIT_NUMBER[mask]!]!))) {
        mask = (mask << 1) | 1
        continue
      }
    }
    if (!isMostSignificant(content[i + 4]!)) {
      mask = (mask << 1) | 1
      continue
    }
    let target = view.getUint32(i + 1, true)
    for (;;) {
      target = (target - (i + 5)) | 0
      if (mask === 0) break
      const bits = BIT_NUMBER[mask]! * 8
      if (!isMostSignificant((target >>> (24 - bits)) & 0xff)) break
      target ^= 2 ** (32 - bits) - 1
    }
    target &= 0x01ffffff
    if ((target & 0x01000000) !== 0) target |= 0xff000000
    view.setUint32(i + 1, target >>> 0, true)
    i += 4
  }
}
