/**
 * Lengths of VEX and EVEX instructions from their form alone: the processor has no rows for them, the oracle has to step
 * over them. (SDM Vol. 2A, "Intel AVX Instruction Format", "EVEX Prefixes".)
 */

/** Map 1 opcodes with an immediate byte; map 3 always has one, the other maps never. */
const IMMEDIATE_0F = new Set([0x70, 0x71, 0x72, 0x73, 0xc2, 0xc4, 0xc5, 0xc6])
const VZEROUPPER = 0x77
const LEGACY_PREFIXES = new Set([0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x67])

function modrmLength(bytes: Uint8Array, at: number): number {
  const modrm = bytes[at] ?? 0
  const mod = modrm >> 6
  if (mod === 3) return 1
  const hasSib = (modrm & 7) === 4
  const base = hasSib ? (bytes[at + 1] ?? 0) & 7 : modrm & 7
  const displacement = mod === 1 ? 1 : mod === 2 || base === 5 ? 4 : 0
  return 1 + (hasSib ? 1 : 0) + displacement
}

/** Bytes of the 64-bit-mode VEX or EVEX instruction at the start of `bytes`; 0 when it is neither. */
export function vectorLength(bytes: Uint8Array): number {
  let at = 0
  while (LEGACY_PREFIXES.has(bytes[at] ?? 0)) at++
  const lead = bytes[at] ?? 0
  const second = bytes[at + 1] ?? 0
  if (lead !== 0xc4 && lead !== 0xc5 && lead !== 0x62) return 0
  const map = lead === 0xc5 ? 1 : lead === 0xc4 ? second & 31 : second & 7
  at += lead === 0xc5 ? 2 : lead === 0xc4 ? 3 : 4
  const opcode = bytes[at++] ?? 0
  if (map === 1 && opcode === VZEROUPPER && lead !== 0x62) return at
  const immediate = map === 3 || (map === 1 && IMMEDIATE_0F.has(opcode)) ? 1 : 0
  return at + modrmLength(bytes, at) + immediate
}
