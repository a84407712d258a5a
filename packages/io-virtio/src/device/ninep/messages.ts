/** 9P2000.L: message types, error numbers, and encoding of values. Independent of files. (Linux, "9P2000.L protocol"; intro(5)) */

export const Message = {
  error: 7,
  statfs: 8,
  open: 12,
  create: 14,
  symlink: 16,
  mknod: 18,
  rename: 20,
  readlink: 22,
  getattr: 24,
  setattr: 26,
  xattrwalk: 30,
  xattrcreate: 32,
  readdir: 40,
  fsync: 50,
  lock: 52,
  getlock: 54,
  link: 70,
  mkdir: 72,
  renameat: 74,
  unlinkat: 76,
  version: 100,
  auth: 102,
  attach: 104,
  flush: 108,
  walk: 110,
  read: 116,
  write: 118,
  clunk: 120,
  remove: 122,
} as const

/** size[4] type[1] tag[2] */
export const HEADER_SIZE = 7
/** What comes before the data of Rread and Twrite at most. */
export const IO_HEADER_SIZE = 24
export const NO_FID = 0xffff_ffff
export const QID_SIZE = 13
/** Elements of one Twalk. */
export const MOST_WALK = 16

/** Linux's error numbers by their POSIX names. */
export const ERRORS: Readonly<Record<string, number>> = {
  EPERM: 1,
  ENOENT: 2,
  EIO: 5,
  ENXIO: 6,
  EBADF: 9,
  ENOMEM: 12,
  EACCES: 13,
  EBUSY: 16,
  EEXIST: 17,
  EXDEV: 18,
  ENOTDIR: 20,
  EISDIR: 21,
  EINVAL: 22,
  ENFILE: 23,
  EMFILE: 24,
  ETXTBSY: 26,
  EFBIG: 27,
  ENOSPC: 28,
  EROFS: 30,
  EMLINK: 31,
  ENAMETOOLONG: 36,
  ENOTEMPTY: 39,
  ELOOP: 40,
  EPROTO: 71,
  EOPNOTSUPP: 95,
  ENOTSUP: 95,
  ESTALE: 116,
  EDQUOT: 122,
}

export class ProtocolError extends Error {
  readonly code: string

  constructor(code: string) {
    super(code)
    this.code = code
  }
}

/** A request's values in order. What is not there is EINVAL: a length is never taken on trust. */
export class Reader {
  readonly #view: DataView
  #at: number

  constructor(bytes: Uint8Array, at: number) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    this.#at = at
  }

  #take(length: number): number {
    const at = this.#at
    if (at + length > this.#view.byteLength) throw new ProtocolError('EINVAL')
    this.#at += length
    return at
  }

  u8(): number {
    return this.#view.getUint8(this.#take(1))
  }

  u16(): number {
    return this.#view.getUint16(this.#take(2), true)
  }

  u32(): number {
    return this.#view.getUint32(this.#take(4), true)
  }

  u64(): bigint {
    return this.#view.getBigUint64(this.#take(8), true)
  }

  bytes(length: number): Uint8Array {
    return new Uint8Array(this.#view.buffer, this.#view.byteOffset + this.#take(length), length)
  }

  /** Names are bytes to the host and text to us: what is no UTF-8 is refused, not changed. */
  text(): string {
    try {
      return decoder.decode(this.bytes(this.u16()))
    } catch (error) {
      throw error instanceof ProtocolError ? error : new ProtocolError('EINVAL')
    }
  }
}
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })
const encoder = new TextEncoder()

/** A reply under construction. */
export class Writer {
  #bytes = new Uint8Array(256)
  #view = new DataView(this.#bytes.buffer)
  #length = HEADER_SIZE

  /** Where the next `length` bytes go. May move all: ask first, then take hold of the bytes. */
  #room(length: number): number {
    const at = this.#length
    if (at + length > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#bytes.length * 2, at + length))
      larger.set(this.#bytes.subarray(0, at))
      this.#bytes = larger
      this.#view = new DataView(larger.buffer)
    }
    this.#length += length
    return at
  }

  get length(): number {
    return this.#length
  }

  u8(value: number): this {
    const at = this.#room(1)
    this.#view.setUint8(at, value)
    return this
  }

  u16(value: number): this {
    const at = this.#room(2)
    this.#view.setUint16(at, value, true)
    return this
  }

  u32(value: number): this {
    const at = this.#room(4)
    this.#view.setUint32(at, value, true)
    return this
  }

  u64(value: bigint | number): this {
    const at = this.#room(8)
    this.#view.setBigUint64(at, BigInt.asUintN(64, BigInt(value)), true)
    return this
  }

  text(value: string): this {
    const bytes = encoder.encode(value)
    this.u16(bytes.length)
    const at = this.#room(bytes.length)
    this.#bytes.set(bytes, at)
    return this
  }

  /** Room for data: filled by the caller before anything else is written. */
  space(length: number): Uint8Array {
    const at = this.#room(length)
    return this.#bytes.subarray(at, at + length)
  }

  /** Less was needed of the last space. */
  shorten(length: number): void {
    this.#length -= length
  }

  setU32(at: number, value: number): void {
    this.#view.setUint32(at, value, true)
  }

  finish(type: number, tag: number): Uint8Array {
    this.#view.setUint32(0, this.#length, true)
    this.#view.setUint8(4, type)
    this.#view.setUint16(5, tag, true)
    return this.#bytes.subarray(0, this.#length)
  }
}

export const textBytes = (value: string): number => encoder.encode(value).length
