/** Little-endian structures written field by field at their offsets. */

/** A zeroed structure and typed stores into it. */
export class Structure {
  readonly bytes: Uint8Array<ArrayBuffer>
  private readonly view: DataView

  constructor(length: number) {
    this.bytes = new Uint8Array(length)
    this.view = new DataView(this.bytes.buffer)
  }

  u8(at: number, value: number): this {
    this.view.setUint8(at, value)
    return this
  }

  u16(at: number, value: number): this {
    this.view.setUint16(at, value, true)
    return this
  }

  u32(at: number, value: number): this {
    this.view.setUint32(at, value, true)
    return this
  }

  u64(at: number, value: number | bigint): this {
    this.view.setBigUint64(at, BigInt(value), true)
    return this
  }

  put(at: number, bytes: Uint8Array): this {
    this.bytes.set(bytes, at)
    return this
  }

  text(at: number, text: string): this {
    return this.put(at, new TextEncoder().encode(text))
  }
}

/** What tables' checksums make zero. */
export const byteSum = (bytes: Uint8Array): number => bytes.reduce((total, byte) => (total + byte) & 0xff, 0)

/** Text with its NUL. */
export const cString = (text: string): Uint8Array => new TextEncoder().encode(`${text}\0`)
