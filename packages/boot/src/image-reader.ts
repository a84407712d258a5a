/** Bounded little-endian reads from an image that may be truncated or hostile. Each names the field it reads. */
import { bytesOf } from '@nonroot/contracts'
import type { BootContent } from '@nonroot/contracts'
import { badImage, hex } from './errors.ts'

/** Read at once around a field: headers lie together. */
const WINDOW = 0x2000

export class ImageReader {
  readonly file: string
  private readonly content: BootContent
  /** The part of the content that fields are read from, and where it starts. */
  private view: DataView
  private viewStart = 0

  constructor(file: string, content: BootContent) {
    this.file = file
    this.content = content
    const bytes = content instanceof Uint8Array ? content : new Uint8Array()
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get length(): number {
    return this.content.length
  }

  u8(at: number, field: string): number {
    const offset = this.seek(at, 1, field)
    return this.view.getUint8(offset)
  }

  u16(at: number, field: string): number {
    const offset = this.seek(at, 2, field)
    return this.view.getUint16(offset, true)
  }

  u32(at: number, field: string): number {
    const offset = this.seek(at, 4, field)
    return this.view.getUint32(offset, true)
  }

  /** Values that are addresses or sizes: more than 2^53 is nonsense in any of them. */
  u64(at: number, field: string): number {
    const value = this.u64Exact(at, field)
    if (value > BigInt(Number.MAX_SAFE_INTEGER))
      throw this.bad(field, `0x${value.toString(16)}`, 'it is beyond any memory: the file is corrupted')
    return Number(value)
  }

  /** As it is, for virtual addresses. */
  u64Exact(at: number, field: string): bigint {
    const offset = this.seek(at, 8, field)
    return this.view.getBigUint64(offset, true)
  }

  /** Of what is small. */
  bytes(at: number, length: number, field: string): Uint8Array {
    return bytesOf(this.part(at, length, field))
  }

  /** Not read yet. */
  part(at: number, length: number, field: string): BootContent {
    const { content } = this
    const start = this.within(at, length, field)
    if (content instanceof Uint8Array) return content.subarray(start, start + length)
    return {
      length,
      read: (offset, size) => content.read(start + offset, size),
      readInto: (offset, views, done) => content.readInto(start + offset, views, done),
    }
  }

  bad(field: string, value: string | number, remedy: string) {
    return badImage(this.file, field, value, remedy)
  }

  /** Where in the view a field is; the view is where the field is. */
  private seek(at: number, length: number, field: string): number {
    this.within(at, length, field)
    if (at < this.viewStart || at + length > this.viewStart + this.view.byteLength) {
      const window = bytesOf(this.part(at, Math.min(WINDOW, this.length - at), field))
      this.view = new DataView(window.buffer, window.byteOffset, window.byteLength)
      this.viewStart = at
    }
    return at - this.viewStart
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
