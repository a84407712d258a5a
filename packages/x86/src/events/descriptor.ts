/** Segment descriptors: finding them in the GDT and LDT, decoding them, loading registers from them. (SDM Vol. 3A, "Segment Descriptors") */
import { GuestFault, type Core } from '../state/core.ts'
import { carryInto, implicitAccess, readLinear, wordsAt, writeLinear } from '../paging/access/linear.ts'
import { SEG, segment, SEGMENT, S } from '../state/layout.ts'
import { in64BitCode, invalidateSegment, isLong, isProtected, privilegeOf, setNullSegment, setRealSegment, setSegment } from '../state/segments.ts'
import { RIGHTS, VECTOR } from '../state/register-bits.ts'
import { NO_RPL } from '../state/selectors.ts'

/** System-descriptor types. */
export const SYSTEM_TYPE = {
  tss16: 1,
  ldt: 2,
  busyTss16: 3,
  callGate16: 4,
  taskGate: 5,
  interruptGate16: 6,
  trapGate16: 7,
  tss32: 9,
  busyTss32: 11,
  callGate32: 12,
  interruptGate32: 14,
  trapGate32: 15,
} as const

export class Descriptor {
  readonly low: number
  readonly high: number
  /** Linear address of its first byte. */
  readonly addressLow: number
  readonly addressHigh: number

  constructor(low: number, high: number, addressLow: number, addressHigh: number) {
    this.low = low
    this.high = high
    this.addressLow = addressLow
    this.addressHigh = addressHigh
  }
  get base(): number {
    return (this.low >>> 16) | ((this.high & 0xff) << 16) | (this.high & 0xff00_0000)
  }
  /** In bytes, as a 32-bit pattern. */
  get limit(): number {
    const limit = (this.low & 0xffff) | (this.high & 0xf_0000)
    return this.high & 0x80_0000 ? (limit << 12) | 0xfff : limit
  }
  /** In the format of the segment registers. */
  get rights(): number {
    return (this.high >>> 8) & 0xf0ff
  }
  get type(): number {
    return (this.high >>> 8) & 15
  }
  get privilege(): number {
    return (this.high >>> 13) & 3
  }
  get present(): boolean {
    return (this.high & 0x8000) !== 0
  }
  /** Code or data, not a system descriptor or gate. */
  get isSegment(): boolean {
    return (this.high & 0x1000) !== 0
  }
  get isCode(): boolean {
    return (this.high & 0x1800) === 0x1800
  }
  get isConforming(): boolean {
    return (this.high & 0x400) !== 0
  }
  get isReadable(): boolean {
    return !this.isCode || (this.high & 0x200) !== 0
  }
  get isWritableData(): boolean {
    return (this.high & 0x1a00) === 0x1200
  }
  // As a gate.
  get gateSelector(): number {
    return this.low >>> 16
  }
  get gateOffset(): number {
    return (this.low & 0xffff) | (this.high & 0xffff_0000)
  }
}

export const isNull = (selector: number): boolean => (selector & NO_RPL) === 0

/** Low half of the linear address of a selector's descriptor, or -1 beyond the table's limit. The high half is left in `descriptorHigh`. */
let descriptorHigh = 0
function locateDescriptor(core: Core, selector: number, bytes: number): number {
  const table = segment(selector & 4 ? SEGMENT.ldtr : SEGMENT.gdtr)
  const index = selector & 0xfff8
  if (selector & 4 && core.get32(table + SEG.attributes) & RIGHTS.unusable) return NaN
  if (index + bytes - 1 > core.get32(table + SEG.limit) >>> 0) return NaN
  const low = core.get32(table + SEG.base)
  descriptorHigh = carryInto(core, low, core.get32(table + SEG.base + 4), index)
  return (low + index) | 0
}

/** The descriptor, or undefined if the selector is outside its table. */
export function findDescriptor(core: Core, selector: number): Descriptor | undefined {
  const low = locateDescriptor(core, selector, 8)
  if (Number.isNaN(low)) return undefined
  const high = descriptorHigh
  const access = implicitAccess(core)
  const words = wordsAt(core, low, high, 8, access)
  if (words >= 0) return new Descriptor(core.i32[words]!, core.i32[words + 1]!, low, high)
  const upper = readLinear(core, (low + 4) | 0, carryInto(core, low, high, 4), 4, access)
  return new Descriptor(readLinear(core, low, high, 4, access), upper, low, high)
}

/** The descriptor; outside its table, raises the given fault (`external`: the EXT bit of its error code). */
export function readDescriptor(core: Core, selector: number, vector: number = VECTOR.GP, external = 0): Descriptor {
  const found = findDescriptor(core, selector)
  if (!found) throw new GuestFault(vector, (selector & NO_RPL) | external)
  return found
}

/** Upper 8 bytes of a system descriptor in long mode: base or offset 63:32. Type bits there must be 0. */
export function readUpperBase(
  core: Core,
  d: Descriptor,
  selector: number,
  vector: number = VECTOR.GP,
  external = 0,
): number {
  const table = segment(selector & 4 ? SEGMENT.ldtr : SEGMENT.gdtr)
  const fault = () => new GuestFault(vector, (selector & NO_RPL) | external)
  if ((selector & 0xfff8) + 15 > core.get32(table + SEG.limit) >>> 0) throw fault()
  const access = implicitAccess(core)
  const at = (n: number) =>
    readLinear(core, (d.addressLow + n) | 0, carryInto(core, d.addressLow, d.addressHigh, n), 4, access)
  const upper = at(8)
  if (at(12) & 0x1f00) throw fault()
  return upper
}

/** Sets bits in the byte of a descriptor that holds its type: accessed, or TSS busy. */
export function markDescriptor(core: Core, d: Descriptor, set: number, clear = 0): void {
  const old = (d.high >>> 8) & 0xff
  const value = (old | set) & ~clear
  if (value === old) return
  writeLinear(
    core,
    (d.addressLow + 5) | 0,
    carryInto(core, d.addressLow, d.addressHigh, 5),
    1,
    value,
    implicitAccess(core),
  )
}

/** Loads a code or data segment register, marking the descriptor accessed. */
export function loadSegment(core: Core, n: number, selector: number, d: Descriptor): void {
  markDescriptor(core, d, RIGHTS.accessed)
  setSegment(core, n, selector, d.base, 0, d.limit, d.rights | RIGHTS.accessed)
}

/**
 * Loads a selector into a data segment register, for MOV, POP, LDS and similar. Throws before anything changes. (SDM Vol. 2B, "MOV", "Loading a
 * segment register under protected mode")
 */
export function loadDataSegment(core: Core, n: number, selector: number): void {
  if (!isProtected(core)) return setRealSegment(core, n, selector)
  const cpl = core.get32(S.cpl)
  if (n === SEGMENT.ss) return loadStackSegment(core, selector, cpl)
  if (isNull(selector)) return setNullSegment(core, n, selector)
  const code = selector & NO_RPL
  const d = readDescriptor(core, selector)
  if (!d.isSegment || !d.isReadable) throw new GuestFault(VECTOR.GP, code)
  if (!(d.isCode && d.isConforming) && d.privilege < Math.max(cpl, selector & 3)) throw new GuestFault(VECTOR.GP, code)
  if (!d.present) throw new GuestFault(VECTOR.NP, code)
  loadSegment(core, n, selector, d)
}

function loadStackSegment(core: Core, selector: number, cpl: number): void {
  const code = selector & NO_RPL
  if (isNull(selector)) {
    if (!in64BitCode(core) || cpl === 3 || (selector & 3) !== cpl) throw new GuestFault(VECTOR.GP, 0)
    return setNullStack(core, selector, cpl)
  }
  loadSegment(core, SEGMENT.ss, selector, checkStackSegment(core, selector, cpl, VECTOR.GP, code))
}

/** A null SS, as 64-bit mode allows. Its DPL is the CPL. */
export function setNullStack(core: Core, selector: number, cpl: number): void {
  setSegment(core, SEGMENT.ss, selector, 0, 0, 0, RIGHTS.unusable | (cpl << 5))
}

/** The descriptor of a stack segment for privilege `cpl`; `vector` is raised for all faults except an absent segment. */
export function checkStackSegment(core: Core, selector: number, cpl: number, vector: number, code: number): Descriptor {
  const d = findDescriptor(core, selector)
  if (!d || (selector & 3) !== cpl || !d.isWritableData || d.privilege !== cpl) throw new GuestFault(vector, code)
  if (!d.present) throw new GuestFault(VECTOR.SS, code)
  return d
}

/** After a return to an outer level: data segments that it must not use become null. (SDM Vol. 2B, "RET") */
export function dropInnerSegments(core: Core, cpl: number): void {
  for (const n of [SEGMENT.es, SEGMENT.ds, SEGMENT.fs, SEGMENT.gs]) {
    const rights = core.segmentAttributes(n)
    if (rights & RIGHTS.unusable) continue
    const conforming = (rights & (RIGHTS.code | RIGHTS.direction)) === (RIGHTS.code | RIGHTS.direction)
    if (!conforming && privilegeOf(rights) < cpl) invalidateSegment(core, n)
  }
}
export { isLong }
