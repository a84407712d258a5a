/** The ELF kernel inside a bzImage, for boot protocols that start it directly (PVH, 64-bit ELF); the guest then need not decompress itself. */
import { type Bytes, dataView, startsWith } from './bytes.ts'
import { type Decompressors, decompress, compressionOf } from './compression.ts'
import { invalidImage } from './errors.ts'

const HEADER_MAGIC = 0x53726448 // "HdrS"
const ELF = [0x7f, 0x45, 0x4c, 0x46]

/** Where the setup header says the compressed kernel is. (Linux, "The Linux/x86 Boot Protocol", payload_offset, payload_length) */
export function bzImagePayload(bzImage: Bytes, file = 'kernel'): Bytes {
  if (bzImage.length < 0x260 || dataView(bzImage).getUint32(0x202, true) !== HEADER_MAGIC) {
    throw invalidImage(file, 'setup header magic', 'not "HdrS"', 'give a Linux bzImage (vmlinuz)')
  }
  const view = dataView(bzImage)
  const version = view.getUint16(0x206, true)
  if (version < 0x208)
    throw invalidImage(
      file,
      'boot protocol version',
      `0x${version.toString(16)}`,
      'a payload is described from 2.08 (0x208) on',
    )
  const protectedMode = ((view.getUint8(0x1f1) || 4) + 1) * 512
  const start = protectedMode + view.getUint32(0x248, true)
  const length = view.getUint32(0x24c, true)
  if (length < 8 || start + length > bzImage.length) {
    throw invalidImage(
      file,
      'payload_offset + payload_length',
      `${start} + ${length}`,
      `the file has ${bzImage.length} bytes: it is truncated`,
    )
  }
  return bzImage.subarray(start, start + length)
}

/** The ELF itself: given as one, or unpacked from a bzImage. */
export async function extractVmlinux(
  kernel: Bytes,
  decompressors: Decompressors = {},
  file = 'kernel',
): Promise<Bytes> {
  if (startsWith(kernel, ELF)) return kernel
  const payload = bzImagePayload(kernel, file)
  const compression = compressionOf(payload)
  // Linux appends the decompressed size (four bytes) to all but gzip, which has it by itself.
  const packed =
    compression === 'gzip' || compression === 'none' || compression === 'lz4' ? payload : payload.subarray(0, -4)
  const vmlinux = await decompress(packed, decompressors, file)
  if (!startsWith(vmlinux, ELF)) {
    throw invalidImage(
      file,
      `payload (${compression})`,
      'no ELF inside',
      'kernels compressed with gzip, xz, zstd or lz4 are known: give an uncompressed vmlinux',
    )
  }
  return vmlinux
}
