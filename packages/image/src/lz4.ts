/** LZ4 in the legacy frame that Linux wraps its own image in. Decompression of that frame format only. (lz4 frame format, "Legacy frame") */
import { type Bytes, dataView } from './bytes.ts'
import { invalidImage } from './errors.ts'

export const LZ4_LEGACY_MAGIC = [0x02, 0x21, 0x4c, 0x18]
const BLOCK_SIZE = 8 << 20 // each block of a legacy frame holds this much, save the last
const LARGEST = 1 << 30

/** Decodes until the input ends or what follows is no block (Linux appends the decompressed size, four bytes). */
export function decompressLz4(frame: Bytes, file = 'lz4 data'): Uint8Array<ArrayBuffer> {
  const view = dataView(frame)
  const blocks: Uint8Array[] = []
  let total = 0
  for (let at = 4; at + 4 <= frame.length;) {
    const size = view.getUint32(at, true)
    if (at + 4 + size > frame.length) {
      if (frame.length - at === 4) break
      throw invalidImage(
        file,
        `lz4 block size at ${at}`,
        String(size),
        `at most ${frame.length - at - 4} bytes are left: the file is truncated`,
      )
    }
    const block = decompressBlock(frame.subarray(at + 4, at + 4 + size), file)
    total += block.length
    if (total > LARGEST) throw invalidImage(file, 'lz4 decompressed size', String(total), `at most ${LARGEST} bytes`)
    blocks.push(block)
    at += 4 + size
  }
  const joined = new Uint8Array(total)
  let to = 0
  for (const block of blocks) {
    joined.set(block, to)
    to += block.length
  }
  return joined
}

/** One block: sequences of (literals, match), the last without a match. (lz4 block format) */
function decompressBlock(source: Bytes, file: string): Uint8Array {
  const target = new Uint8Array(BLOCK_SIZE)
  const corrupt = (at: number) =>
    invalidImage(file, `lz4 sequence at ${at}`, 'out of bounds', 'the file is corrupted: get it again')
  let from = 0
  let to = 0
  while (from < source.length) {
    const start = from
    const token = source[from++]!
    let literals = token >> 4
    if (literals === 15) {
      let more
      do literals += more = source[from++] ?? 0
      while (more === 255)
    }
    if (from + literals > source.length || to + literals > BLOCK_SIZE) throw corrupt(start)
    target.set(source.subarray(from, from + literals), to)
    from += literals
    to += literals
    if (from >= source.length) break
    if (from + 2 > source.length) throw corrupt(start)
    const offset = source[from]! | (source[from + 1]! << 8)
    from += 2
    let length = (token & 15) + 4
    if (length === 19) {
      let more
      do length += more = source[from++] ?? 0
      while (more === 255)
    }
    if (offset === 0 || offset > to || to + length > BLOCK_SIZE) throw corrupt(start)
    if (offset >= length) target.copyWithin(to, to - offset, to - offset + length)
    else for (let i = 0; i < length; i++) target[to + i] = target[to + i - offset]!
    to += length
  }
  return target.subarray(0, to)
}
