/**
 * @hot Bytes to `Instruction`: prefixes, opcode, ModRM, displacement, immediate. (SDM Vol. 2A, "Instruction Format".) Only encodings: privilege, CR4
 * features and similar are checked at execution.
 */
import { BASE_RIP, DS, SS, type CodeSize, type Instruction } from './instruction.ts'
import { type DecodeTables, EVERY_ROW, IMMEDIATE, topIndex, TRAIT, UNSETTLED, VEX_L1 } from './tables.ts'

export interface DecodeMode {
  readonly codeSize: CodeSize
  /** False in real-address and virtual-8086 mode. */
  readonly protectedMode: boolean
  /** Rows that exist; default: all. See `DecodeTables`. */
  readonly tables?: DecodeTables
}

/**
 * `ok`; `ud`: no such instruction, `into.length` bytes were examined; `truncated`: more bytes than `available` are needed; `tooLong`: more than 15
 * bytes are (#GP).
 */
export type DecodeResult = 'ok' | 'ud' | 'truncated' | 'tooLong'

const MAX_LENGTH = 15

const PREFIX = { none: 0, segment: 1, operandSize: 2, addressSize: 3, lock: 4, repeat: 5, rex: 6 } as const
const prefixKind = new Uint8Array(256)
for (const byte of [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65]) prefixKind[byte] = PREFIX.segment
prefixKind[0x66] = PREFIX.operandSize
prefixKind[0x67] = PREFIX.addressSize
prefixKind[0xf0] = PREFIX.lock
prefixKind[0xf2] = prefixKind[0xf3] = PREFIX.repeat
for (let byte = 0x40; byte < 0x50; byte++) prefixKind[byte] = PREFIX.rex

/** 16-bit addressing by ModRM.rm. (SDM Vol. 2A, "16-Bit Addressing Forms with the ModR/M Byte".) */
const BASE_16 = Int8Array.of(3, 3, 5, 5, 6, 7, 5, 3)
const INDEX_16 = Int8Array.of(6, 7, 6, 7, -1, -1, -1, -1)

// The cursor: decoding never nests, so one is enough and nothing is allocated.
let code: Uint8Array = new Uint8Array(0)
let at = 0
let end = 0

/** Callers have checked that the bytes are there. */
const u16 = (): number => {
  const value = code[at]! | (code[at + 1]! << 8)
  at += 2
  return value
}
const i32 = (): number => {
  const value = code[at]! | (code[at + 1]! << 8) | (code[at + 2]! << 16) | (code[at + 3]! << 24)
  at += 4
  return value
}
const i8 = (): number => (code[at++]! << 24) >> 24

const finish = (into: Instruction, start: number, result: DecodeResult): DecodeResult => {
  into.length = at - start
  return result
}

/** The bytes ran out. */
const exhausted = (into: Instruction, start: number): DecodeResult =>
  finish(into, start, end - start >= MAX_LENGTH ? 'tooLong' : 'truncated')

/** Decodes up to `available` bytes at `offset` into `into`, whose `row` is valid only if the result is `ok`. */
export function decode(
  bytes: Uint8Array,
  offset: number,
  available: number,
  mode: DecodeMode,
  into: Instruction,
): DecodeResult {
  code = bytes
  at = offset
  end = offset + (available < MAX_LENGTH ? available : MAX_LENGTH)
  const { codeSize, tables = EVERY_ROW } = mode
  const long = codeSize === 64
  into.codeSize = codeSize
  if (!prefixes(into, long)) return exhausted(into, offset)

  // Opcode and map
  let opcode = code[at++]!
  let map = 0
  let prefix = into.rep === 0xf3 ? 2 : into.rep === 0xf2 ? 3 : into.operandSizePrefix ? 1 : 0
  into.vex = false
  into.vvvv = 0
  if (opcode === 0x0f) {
    if (at >= end) return exhausted(into, offset)
    opcode = code[at++]!
    map = 1
    if (opcode === 0x38 || opcode === 0x3a) {
      map = opcode === 0x38 ? 2 : 3
      if (at >= end) return exhausted(into, offset)
      opcode = code[at++]!
    }
  } else if (opcode === 0xc4 || opcode === 0xc5) {
    if (at >= end) return exhausted(into, offset)
    if (long || (mode.protectedMode && code[at]! >= 0xc0)) {
      if (at + (opcode === 0xc4 ? 2 : 1) >= end) return exhausted(into, offset)
      const head = vexPrefix(opcode, into, long)
      if (head < 0) return finish(into, offset, 'ud')
      map = head >> 2
      prefix = head & 3
      opcode = code[at++]!
    }
  }
  into.opcode = opcode

  // Row
  const w = (into.rex >> 3) & 1
  const cell = topIndex(long ? 1 : 0, map, opcode, prefix, w)
  let entry = tables.top[cell]!
  if (entry === UNSETTLED) entry = tables.settle(cell)
  if (entry === 0) return finish(into, offset, 'ud')
  if (entry < 0) {
    if (at >= end) return exhausted(into, offset)
    entry = tables.byModrm[-entry - 1]![code[at]!]!
    if (entry === 0) {
      at++
      return finish(into, offset, 'ud')
    }
  }
  let id = entry - 1
  if ((into.rex & 1) !== 0 && tables.withRexB[id]! >= 0) id = tables.withRexB[id]!
  const row = tables.rows[id]!
  const traits = tables.traits[id]!
  into.row = row
  sizes(into, codeSize, traits)

  // Operands
  into.isMemory = false
  into.base = into.index = -1
  into.scale = into.displacement = into.displacementHigh = 0
  into.segment = into.segmentOverride >= 0 ? into.segmentOverride : DS
  into.hasModrm = (traits & TRAIT.modrm) !== 0
  into.mod = into.reg = into.rm = 0
  if (into.hasModrm) {
    if (!modrm(into, traits)) return exhausted(into, offset)
    if ((traits & TRAIT.regRestricted) !== 0 && ((tables.legalReg[id]! >> into.reg) & 1) === 0)
      return finish(into, offset, 'ud')
  } else if ((traits & TRAIT.plusRegister) !== 0) {
    into.rm = (opcode & 7) | ((into.rex & 1) << 3)
  }
  into.immediate = into.immediateHigh = into.immediate2 = 0
  const kind = tables.immediates[id]!
  if (kind !== IMMEDIATE.none && !immediate(into, kind)) return exhausted(into, offset)
  const illegal =
    (into.lock && ((traits & TRAIT.lock) === 0 || !into.isMemory)) ||
    ((traits & TRAIT.notReal) !== 0 && !mode.protectedMode) ||
    (into.vvvv !== 0 && (traits & TRAIT.vvvv) === 0)
  return finish(into, offset, illegal ? 'ud' : 'ok')
}

/** Legacy prefixes in any order, then REX. False when no byte follows. */
function prefixes(into: Instruction, long: boolean): boolean {
  let rex = 0
  into.lock = into.operandSizePrefix = into.rexPresent = false
  into.rep = 0
  into.segmentOverride = -1
  let otherAddressSize = false
  for (; at < end; at++) {
    const byte = code[at]!
    const kind = prefixKind[byte]!
    if (kind === PREFIX.none || (kind === PREFIX.rex && !long)) {
      into.rex = rex
      into.rexPresent = rex !== 0
      if (into.codeSize === 64) into.addressSize = otherAddressSize ? 32 : 64
      else into.addressSize = (into.codeSize === 16) === otherAddressSize ? 32 : 16
      return true
    }
    // A REX that a legacy prefix follows is ignored.
    rex = kind === PREFIX.rex ? byte : 0
    if (kind === PREFIX.segment) {
      const segment = byte >= 0x64 ? byte - 0x60 : (byte >> 3) & 3
      if (!long || segment > DS) into.segmentOverride = segment
    } else if (kind === PREFIX.operandSize) into.operandSizePrefix = true
    else if (kind === PREFIX.addressSize) otherAddressSize = true
    else if (kind === PREFIX.lock) into.lock = true
    else if (kind === PREFIX.repeat) into.rep = byte as 0xf2 | 0xf3
  }
  return false
}

/** C4 or C5 has been read. Returns map × 4 + pp, or -1 (#UD). (SDM Vol. 2A, "The VEX Prefix".) */
function vexPrefix(opcode: number, into: Instruction, long: boolean): number {
  if (into.rexPresent || into.lock || into.operandSizePrefix || into.rep !== 0) return -1
  const first = code[at++]!
  const last = opcode === 0xc4 ? code[at++]! : first
  const inverted = opcode === 0xc4 ? ~first >> 5 : (~first >> 5) & 4
  const map = opcode === 0xc4 ? first & 31 : 1
  if (map < 1 || map > 3) return -1
  into.vex = true
  // Outside 64-bit mode W, R, X and B have no effect, and there are eight registers.
  into.rex = long ? (inverted & 7) | (opcode === 0xc4 ? (last >> 4) & 8 : 0) : 0
  into.vvvv = (~last >> 3) & (long ? 15 : 7)
  return ((map + 3 + ((last & 4) === 0 ? 0 : VEX_L1)) << 2) | (last & 3)
}

function sizes(into: Instruction, codeSize: CodeSize, traits: number): void {
  const narrow = into.operandSizePrefix && (traits & TRAIT.prefix66) === 0
  if (codeSize !== 64) into.operandSize = (codeSize === 16) === narrow ? 32 : 16
  else if ((into.rex & 8) !== 0 || (traits & TRAIT.force64) !== 0) into.operandSize = 64
  else into.operandSize = narrow ? 16 : (traits & TRAIT.default64) !== 0 ? 64 : 32
}

/** ModRM, SIB and displacement. False when the bytes run out. */
function modrm(into: Instruction, traits: number): boolean {
  if (at >= end) return false
  const byte = code[at++]!
  const { rex } = into
  const mod = (traits & TRAIT.modIgnored) !== 0 ? 3 : byte >> 6
  into.mod = mod
  into.reg = ((byte >> 3) & 7) | ((traits & TRAIT.regUnextended) === 0 ? (rex & 4) << 1 : 0)
  if (mod === 3) {
    into.rm = (byte & 7) | ((traits & TRAIT.rmUnextended) === 0 ? (rex & 1) << 3 : 0)
    return true
  }
  into.rm = (byte & 7) | ((rex & 1) << 3)
  into.isMemory = true
  const done = into.addressSize === 16 ? address16(into, mod, byte & 7) : address32(into, mod, byte & 7)
  if (into.segmentOverride < 0 && (into.base === 4 || into.base === 5)) into.segment = SS
  return done
}

function address16(into: Instruction, mod: number, rm: number): boolean {
  const absolute = mod === 0 && rm === 6
  into.base = absolute ? -1 : BASE_16[rm]!
  into.index = INDEX_16[rm]!
  if (mod === 1) {
    if (at >= end) return false
    into.displacement = i8()
  } else if (mod === 2 || absolute) {
    if (at + 2 > end) return false
    into.displacement = (u16() << 16) >> 16
  }
  into.displacementHigh = into.displacement >> 31
  return true
}

function address32(into: Instruction, mod: number, rm: number): boolean {
  const { rex } = into
  let base = rm
  if (rm === 4) {
    if (at >= end) return false
    const sib = code[at++]!
    base = sib & 7
    const index = ((sib >> 3) & 7) | ((rex & 2) << 2)
    if (index !== 4) {
      into.index = index
      into.scale = sib >> 6
    }
  }
  let displacement32 = mod === 2
  if (mod === 0 && base === 5) {
    displacement32 = true
    into.base = rm === 5 && into.codeSize === 64 ? BASE_RIP : -1
  } else into.base = base | ((rex & 1) << 3)
  if (mod === 1) {
    if (at >= end) return false
    into.displacement = i8()
  } else if (displacement32) {
    if (at + 4 > end) return false
    into.displacement = i32()
  }
  into.displacementHigh = into.displacement >> 31
  return true
}

/** What follows ModRM. False when the bytes run out. */
function immediate(into: Instruction, kind: number): boolean {
  const left = end - at
  const wide = into.operandSize !== 16
  switch (kind) {
    case IMMEDIATE.byte:
      if (left < 1) return false
      into.immediate = code[at++]!
      return true
    case IMMEDIATE.byteSigned:
      if (left < 1) return false
      into.immediate = i8()
      break
    case IMMEDIATE.word:
      if (left < 2) return false
      into.immediate = u16()
      return true
    case IMMEDIATE.z:
      if (left < (wide ? 4 : 2)) return false
      into.immediate = wide ? i32() : (u16() << 16) >> 16
      break
    case IMMEDIATE.full:
      if (left < into.operandSize >> 3) return false
      into.immediate = wide ? i32() : (u16() << 16) >> 16
      if (into.operandSize === 64) {
        into.immediateHigh = i32()
        return true
      }
      break
    case IMMEDIATE.wordByte:
      if (left < 3) return false
      into.immediate = u16()
      into.immediate2 = code[at++]!
      return true
    case IMMEDIATE.farPointer:
      if (left < (wide ? 6 : 4)) return false
      into.immediate = wide ? i32() : u16()
      into.immediate2 = u16()
      return true
    case IMMEDIATE.offset:
      if (left < into.addressSize >> 3) return false
      into.isMemory = true
      into.displacement = into.addressSize === 16 ? u16() : i32()
      if (into.addressSize === 64) into.displacementHigh = i32()
      return true
  }
  into.immediateHigh = into.immediate >> 31
  return true
}
