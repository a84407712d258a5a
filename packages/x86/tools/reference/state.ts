/**
 * The state of the reference machine and its memory, seen through the walks of translation.ts. Nothing here runs an instruction or delivers an event
 * (machine.ts, delivery.ts).
 */
import { gpr, S, SEG, segment, VCPU_SIZE } from '../../src/state/layout.ts'
import { FLAG } from '../../src/state/register-bits.ts'
import { errorCode, isFault, Translations, type Access } from './translation.ts'

/** An exception, thrown through nested calls. */
export class Fault {
  readonly vector: number
  readonly code: number | undefined
  constructor(vector: number, code?: number) {
    this.vector = vector
    this.code = code
  }
}

/** Where no memory is, accesses go to a device: it answers by address and keeps what is written. */
export interface Device {
  read(physical: number, size: number): number
  write(physical: number, size: number, value: number): void
}

export class ReferenceState {
  readonly block = new DataView(new ArrayBuffer(VCPU_SIZE))
  readonly ram: Uint8Array
  readonly #view: DataView
  readonly device: Device
  readonly translations: Translations
  /** Instructions retired and events delivered. */
  retired = 0
  /** Bytes of the running instruction. */
  length = 0
  /** Bytes of memory that changed since the last checkpoint, oldest first, as 256 times the address plus the byte, and the state there: an outcome that is undefined is taken back. */
  readonly #journal: number[] = []
  readonly #slots = new Uint8Array(this.block.buffer)
  readonly #before = new Uint8Array(VCPU_SIZE)
  #retiredBefore = 0

  constructor(ramBytes: number, device: Device) {
    this.ram = new Uint8Array(ramBytes)
    this.#view = new DataView(this.ram.buffer)
    this.device = device
    this.translations = new Translations({
      readWord: (at) => (at + 4 <= this.ram.length ? this.#view.getInt32(at, true) : -1),
      writeWord: (at, value) => {
        this.#note(at, 4)
        this.#view.setInt32(at, value, true)
      },
    })
  }

  /** Here `rollBack` leads until the next call. */
  checkpoint(): void {
    this.#journal.length = 0
    this.#before.set(this.#slots)
    this.#retiredBefore = this.retired
  }
  /** Takes back what was done since the checkpoint; what may be cached is forgotten. */
  rollBack(): void {
    this.#slots.set(this.#before)
    this.retired = this.#retiredBefore
    for (const was of this.#journal.toReversed()) this.ram[Math.floor(was / 256)] = was % 256
    this.translations.clear()
  }
  #note(at: number, bytes: number): void {
    for (let n = at; n < at + bytes; n++) this.#journal.push(n * 256 + this.ram[n]!)
  }

  // --- state ---

  get32(slot: number): number {
    return this.block.getInt32(slot, true)
  }
  set32(slot: number, value: number): void {
    this.block.setInt32(slot, value, true)
  }
  get64(slot: number): bigint {
    return this.block.getBigUint64(slot, true)
  }
  set64(slot: number, value: bigint): void {
    this.block.setBigUint64(slot, BigInt.asUintN(64, value), true)
  }
  arg(n: number): bigint {
    return this.get64(S.args + 8 * n)
  }
  get cpl(): number {
    return this.get32(S.cpl)
  }
  get flags(): number {
    const low = Number(this.get64(S.sp) & 0xffn)
    let bits = 0
    for (let n = 0; n < 8; n++) bits ^= (low >> n) & 1
    return (
      this.get32(S.flags) | 2 | this.get32(S.cf) | (this.get32(S.af) & FLAG.AF) |
      (bits ? 0 : FLAG.PF) | (this.get64(S.zr) ? 0 : FLAG.ZF) | (this.get64(S.sp) >> 63n ? FLAG.SF : 0) | (this.get64(S.of) >> 63n ? FLAG.OF : 0)
    )
  }
  set flags(value: number) {
    this.set32(S.cf, value & FLAG.CF)
    this.set32(S.af, value & FLAG.AF)
    this.set64(S.zr, value & FLAG.ZF ? 0n : 1n)
    this.set64(S.sp, (value & FLAG.SF ? 1n << 63n : 0n) | (value & FLAG.PF ? 0n : 1n))
    this.set64(S.of, value & FLAG.OF ? 1n << 63n : 0n)
    this.set32(S.flags, (value & 0x3f_7700) | 2)
  }
  get pcid(): number {
    return this.get32(S.cr4) & 0x2_0000 ? this.get32(S.cr3) & 0xfff : 0
  }

  // --- memory ---

  /** `implicit`: an access to a descriptor table or TSS, a supervisor's whatever the CPL. */
  translate(linear: bigint, kind: 'read' | 'write' | 'fetch', implicit = false): number {
    const access: Access = {
      write: kind === 'write', fetch: kind === 'fetch', user: this.cpl === 3 && !implicit,
      guarded: implicit || !(this.get32(S.flags) & FLAG.AC),
    }
    const cr0 = this.get32(S.cr0), cr4 = this.get32(S.cr4)
    const answer = this.translations.translate(linear, access, {
      table: (this.get32(S.cr3 + 4) & 0xff) * 2 ** 32 + ((this.get32(S.cr3) & ~0xfff) >>> 0), pcid: this.pcid, wp: (cr0 & 0x1_0000) !== 0, smep: (cr4 & 0x10_0000) !== 0, smap: (cr4 & 0x20_0000) !== 0,
      nxe: (this.get32(S.efer) & 0x800) !== 0, pge: (cr4 & 0x80) !== 0,
    })
    if (!isFault(answer)) return answer
    this.set64(S.cr2, linear)
    throw new PageFault(linear, errorCode(answer))
  }

  read(linear: bigint, bytes: number, implicit = false): bigint {
    const pieces = this.pieces(linear, bytes, 'read', implicit)
    const [{ physical: first }] = pieces as [Piece]
    if (pieces.length === 1 && first + bytes <= this.ram.length && bytes <= 8) return readBits(this.#view, first, bytes)
    let value = 0n, at = 0
    for (const { physical, length } of pieces) {
      for (let n = 0; n < length; ) {
        const isRam = physical + n < this.ram.length
        const size = isRam ? 1 : deviceSize(length - n, pieces.length > 1)
        const part = isRam ? this.ram[physical + n]! : this.device.read(physical + n, size)
        value |= BigInt.asUintN(size * 8, BigInt(part)) << BigInt(8 * at)
        n += size
        at += size
      }
    }
    return value
  }
  write(linear: bigint, bytes: number, value: bigint, implicit = false): void {
    const pieces = this.pieces(linear, bytes, 'write', implicit)
    const [{ physical: first }] = pieces as [Piece]
    if (pieces.length === 1 && first + bytes <= this.ram.length && bytes <= 8) {
      this.#note(first, bytes)
      return writeBits(this.#view, first, bytes, value)
    }
    let at = 0
    for (const { physical, length } of pieces) {
      for (let n = 0; n < length; ) {
        const isRam = physical + n < this.ram.length
        const size = isRam ? 1 : deviceSize(length - n, pieces.length > 1)
        const part = Number((value >> BigInt(8 * at)) & ((1n << BigInt(8 * size)) - 1n))
        if (isRam) {
          this.#note(physical + n, 1)
          this.ram[physical + n] = part
        } else this.device.write(physical + n, size, part)
        n += size
        at += size
      }
    }
  }
  /** Both pages of an access that crosses are checked before any byte moves. */
  pieces(linear: bigint, bytes: number, kind: 'read' | 'write', implicit: boolean): Piece[] {
    const head = Math.min(bytes, 4096 - Number(linear & 4095n))
    const pieces = [{ physical: this.translate(linear, kind, implicit), length: head }]
    if (head < bytes) pieces.push({ physical: this.translate(BigInt.asUintN(64, linear + BigInt(head)), kind, implicit), length: bytes - head })
    return pieces
  }

  // --- segments ---

  setSegment(n: number, selector: number, base: bigint, limit: number, rights: number): void {
    const at = segment(n)
    this.set64(at + SEG.base, base)
    this.set32(at + SEG.limit, limit)
    this.set32(at + SEG.selector, selector)
    this.set32(at + SEG.attributes, rights)
  }
  selector(n: number): number {
    return this.get32(segment(n) + SEG.selector) & 0xffff
  }
  base(n: number): bigint {
    return this.get64(segment(n) + SEG.base)
  }
  limit(n: number): number {
    return this.get32(segment(n) + SEG.limit) >>> 0
  }
  get rsp(): bigint {
    return this.get64(gpr(4))
  }
  set rsp(value: bigint) {
    this.set64(gpr(4), value)
  }
}

/** Bytes of an access that lie on one page. */
interface Piece {
  readonly physical: number
  readonly length: number
}

/** Bytes, the lowest first. */
export function readBits(view: DataView, at: number, bytes: number): bigint {
  if (bytes === 8) return view.getBigUint64(at, true)
  if (bytes === 4) return BigInt(view.getUint32(at, true))
  let value = 0n
  for (let n = 0; n < bytes; n++) value |= BigInt(view.getUint8(at + n)) << BigInt(8 * n)
  return value
}
export function writeBits(view: DataView, at: number, bytes: number, value: bigint): void {
  if (bytes === 8) return view.setBigUint64(at, value, true)
  if (bytes === 4) return view.setUint32(at, Number(value & 0xffff_ffffn), true)
  for (let n = 0; n < bytes; n++) view.setUint8(at + n, Number((value >> BigInt(8 * n)) & 0xffn))
}

class PageFault extends Fault {
  readonly linear: bigint
  constructor(linear: bigint, code: number) {
    super(14, code)
    this.linear = linear
  }
}

export const isCanonical = (linear: bigint): boolean => BigInt.asUintN(64, BigInt.asIntN(48, linear)) === linear
const deviceSize = (bytes: number, crosses: boolean): number => (crosses ? 1 : bytes >= 4 ? 4 : bytes)
