/** Bounded little-endian reads from an image that may be truncated or hostile. Each names the field it reads. */
import { badImage, hex } from './errors.ts'

export class ImageReader {
  readonly file: string
  readonly bytes: Uint8Array
  private readonly view: DataView

  constructor(file: string, bytes: Uint8Array) {
    this.file = file
    this.bytes = bytes
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get length(): number {
    return this.bytes.length
  }

  u8(at: number, field: string): number {
    return this.view.getUint8(this.within(at, 1, field))
  }

  u16(at: number, field: string): number {
    return this.view.getUint16(this.within(at, 2, field), true)
  }

  u32(at: number, field: string): number {
    return this.view.getUint32(this.within(at, 4, field), true)
  }

  /** Values that are addresses or sizes: more than 2^53 is nonsense in any of them. */
  u64(at: number, field: string): number {
    const value = this.view.getBigUint64(this.within(at, 8, field), true)
    if (value > BigInt(Number.MAX_SAFE_INTEGER))
      throw this.bad(field, `0x${value.toString(16)}`, 'it is beyond any memory: the file is corrupted')
    return Number(value)
  }

  /** As it is, for virtual addresses. */
  u64Exact(at: number, field: string): bigint {
    return this.view.getBigUint64(this.within(at, 8, field), true)
  }

  /** A view, not a copy. */
  slice(at: number, length: number, field: string): Uint8Array {
    return this.bytes.subarray(this.within(at, length, field), at + length)
  }

  bad(field: string, value: string | number, remedy: string) {
    return badImage(this.file, field, value, remedy)
  }

  private within(at: number, length: number, field: string): number {
    if (!(at >= 0 && length >= 0 && at + length <= this.length)) {
      throw this.bad(
        field,
        `${length} bytes at ${hex(at)}`,
        `the file has ${this.length} bytes: it is truncated, corrupted, or of another format`,
      )
    }
    return at
  }
}
