/** A growing byte buffer with WebAssembly's LEB128 integers. @hot */
export class Bytes {
  buffer: Uint8Array
  length = 0

  constructor(capacity = 1024) {
    this.buffer = new Uint8Array(capacity)
  }

  reserve(count: number): void {
    if (this.length + count <= this.buffer.length) return
    const larger = new Uint8Array(Math.max(this.buffer.length * 2, this.length + count))
    larger.set(this.buffer.subarray(0, this.length))
    this.buffer = larger
  }

  byte(value: number): void {
    if (this.length === this.buffer.length) this.reserve(1)
    this.buffer[this.length++] = value
  }

  append(other: Bytes): void {
    this.put(other.buffer.subarray(0, other.length))
  }

  put(bytes: Uint8Array): void {
    this.reserve(bytes.length)
    this.buffer.set(bytes, this.length)
    this.length += bytes.length
  }

  /** Unsigned LEB128 of a u32. */
  u32(value: number): void {
    value >>>= 0
    while (value > 0x7f) {
      this.byte((value & 0x7f) | 0x80)
      value >>>= 7
    }
    this.byte(value)
  }

  /** Unsigned LEB128 of a number below 2^14 in two bytes, also where one would do: it can be put in later. */
  padded(value: number): void {
    this.byte((value & 0x7f) | 0x80)
    this.byte(value >>> 7)
  }

  /** Signed LEB128 of an i32. */
  i32(value: number): void {
    value |= 0
    while (value > 63 || value < -64) {
      this.byte((value & 0x7f) | 0x80)
      value >>= 7
    }
    this.byte(value & 0x7f)
  }

  /** Signed LEB128 of an i64. */
  i64(value: bigint): void {
    if (value < 0n || value > 0x7fffffffn) value = BigInt.asIntN(64, value)
    if (value >= -0x80000000n && value <= 0x7fffffffn) return this.i32(Number(value))
    while (value > 63n || value < -64n) {
      this.byte(Number(value & 0x7fn) | 0x80)
      value >>= 7n
    }
    this.byte(Number(value & 0x7fn))
  }

  name(text: string): void {
    this.u32(text.length)
    for (let i = 0; i < text.length; i++) this.byte(text.charCodeAt(i))
  }

  toUint8Array(): Uint8Array<ArrayBuffer> {
    return this.buffer.slice(0, this.length) as Uint8Array<ArrayBuffer>
  }
}
