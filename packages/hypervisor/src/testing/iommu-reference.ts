/** DMA remapping read a second time, entry by entry, without caches: what a model of the IOMMU is compared with. (VT-d, "DMA Remapping"; "Root Entry", "Context Entry", "Second-Level Paging Entries") */

import type { DmaMemory } from '@nonroot/contracts'

const bits = (value: bigint, high: number, low: number): bigint =>
  (value >> BigInt(low)) & ((1n << BigInt(high - low + 1)) - 1n)
const PRESENT = 1n
/** Bits that an address may have here. */
const ADDRESS_BITS = 52

export interface Access {
  readonly root: number
  readonly requester: number
  readonly address: number
  readonly write: boolean
}

/** The physical address; undefined: the access is blocked. */
export function expectedTranslation(
  memory: DmaMemory,
  { root, requester, address, write }: Access,
): number | undefined {
  const quadword = (at: bigint): bigint | undefined => memory.readU64(Number(at))
  const rootAt = BigInt(root) + BigInt(requester >> 8) * 16n
  const [rootLow, rootHigh] = [quadword(rootAt), quadword(rootAt + 8n)]
  if (rootLow === undefined || rootHigh === undefined || !(rootLow & PRESENT)) return undefined
  if (bits(rootLow, 11, 1) || bits(rootLow, 63, ADDRESS_BITS) || rootHigh) return undefined
  const contextAt = (bits(rootLow, 63, 12) << 12n) + BigInt(requester & 0xff) * 16n
  const [low, high] = [quadword(contextAt), quadword(contextAt + 8n)]
  if (low === undefined || high === undefined || !(low & PRESENT)) return undefined
  if (bits(low, 11, 4) || bits(low, 63, ADDRESS_BITS) || bits(high, 7, 7) || bits(high, 63, 24)) return undefined
  const [type, width] = [bits(low, 3, 2), bits(high, 2, 0)]
  // Multi-level tables, or pass-through; 39 or 48 bits.
  if (type > 2n || (width !== 1n && width !== 2n)) return undefined
  if (type === 2n) return address
  const levels = Number(width) + 2
  if (address >= 2 ** (12 + 9 * levels)) return undefined
  const at = BigInt(address)
  let table = bits(low, 63, 12) << 12n
  let allowed = 3n
  for (let level = levels; level >= 1; level--) {
    const shift = 12 + 9 * (level - 1)
    const value = quadword(table + bits(at, shift + 8, shift) * 8n)
    if (value === undefined) return undefined
    allowed &= bits(value, 1, 0)
    if (!allowed) return undefined
    if (level === 4 && bits(value, 7, 7)) return undefined
    const isLarge = level > 1 && bits(value, 7, 7) === 1n
    // A large page is aligned to its size.
    if (isLarge && bits(value, shift - 1, 12)) return undefined
    if (level > 1 && !isLarge) {
      table = bits(value, ADDRESS_BITS - 1, 12) << 12n
      continue
    }
    if (!(allowed & (write ? 2n : 1n))) return undefined
    const page = bits(value, ADDRESS_BITS - 1, shift) << BigInt(shift)
    return Number(page + (at & ((1n << BigInt(shift)) - 1n)))
  }
  return undefined
}
