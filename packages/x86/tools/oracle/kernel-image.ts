/** The ELF file inside a Linux bzImage. (Linux, "The Linux/x86 Boot Protocol": payload_offset, payload_length.) */
import { execFileSync } from 'node:child_process'
import { gunzipSync, zstdDecompressSync } from 'node:zlib'

const ELF = 0x464c457f

/** Blocks of LZ4's legacy frame, as the kernel build writes it. (LZ4 Frame Format Description, "Legacy frame"; LZ4 Block Format.) */
function unpackLz4(input: Buffer): Buffer {
  const output: Buffer[] = []
  const view = input
  for (let at = 4; at + 4 <= input.length;) {
    const size = view.readUInt32LE(at)
    at += 4
    // The word that follows the last block is the size of everything unpacked.
    if (at + size > input.length || size === 0) break
    output.push(unpackLz4Block(input.subarray(at, at + size)))
    at += size
  }
  return Buffer.concat(output)
}

const LEGACY_BLOCK = 8 << 20

function unpackLz4Block(input: Buffer): Buffer {
  const output = Buffer.alloc(LEGACY_BLOCK)
  let from = 0
  let to = 0
  const length = (nibble: number): number => {
    let total = nibble
    if (nibble === 15) {
      let more = 255
      while (more === 255) total += more = input[from++] ?? 0
    }
    return total
  }
  while (from < input.length) {
    const token = input[from++] ?? 0
    const literals = length(token >> 4)
    input.copy(output, to, from, from + literals)
    from += literals
    to += literals
    if (from >= input.length) break
    const distance = input.readUInt16LE(from)
    from += 2
    for (let left = length(token & 15) + 4; left > 0; left--, to++) output[to] = output[to - distance] ?? 0
  }
  return output.subarray(0, to)
}

const unpackWith = (program: string, input: Buffer): Buffer =>
  execFileSync(program, ['-dc'], { input, maxBuffer: 1 << 30, stdio: ['pipe', 'pipe', 'ignore'] })

function unpack(payload: Buffer): Buffer {
  const magic = payload.readUInt32BE(0)
  if (magic === 0x02214c18) return unpackLz4(payload)
  if (magic === 0x28b52ffd) return zstdDecompressSync(payload)
  if (magic >>> 16 === 0x1f8b) return gunzipSync(payload)
  if (magic === 0xfd377a58) return unpackWith('xz', payload.subarray(0, payload.length - 4))
  if (payload.readUInt32LE(0) === ELF) return payload
  throw new Error(`kernel payload starts with ${magic.toString(16)}: not LZ4, zstd, gzip, xz or ELF`)
}

/** `file` itself when it is ELF, the ELF file packed in it when it is a bzImage. */
export function elfOf(file: Buffer): Buffer {
  if (file.readUInt32LE(0) === ELF) return file
  if (file.toString('latin1', 0x202, 0x206) !== 'HdrS') throw new Error('neither ELF nor a Linux bzImage')
  const start = ((file.readUInt8(0x1f1) || 4) + 1) * 512 + file.readUInt32LE(0x248)
  return unpack(file.subarray(start, start + file.readUInt32LE(0x24c)))
}
