/** An image's tables against its reference counts, written from the format's description and not from what writes images. */

import type { ByteStore } from '@nonroot/contracts'

export interface CheckResult {
  /** Clusters in use with a count that is too low, or used twice: data will be lost. */
  readonly errors: string[]
  /** Clusters counted and not used. */
  readonly leaks: number
}

const ADDRESS = 0x00ff_ffff_ffff_fe00n

export async function checkImage(store: ByteStore): Promise<CheckResult> {
  const bytes = new Uint8Array(store.size)
  await store.read(0, bytes)
  const view = new DataView(bytes.buffer)
  const u64 = (at: number): bigint => (at + 8 <= bytes.length ? view.getBigUint64(at) : 0n)
  const clusterSize = 2 ** view.getUint32(20)
  const clusters = Math.ceil(bytes.length / clusterSize)
  const uses = new Map<number, number>()
  const errors: string[] = []
  const use = (offset: number, length = clusterSize): void => {
    if (offset + 1 > clusters * clusterSize) errors.push(`${offset} is outside the file`)
    for (let at = Math.floor(offset / clusterSize); at <= Math.floor((offset + length - 1) / clusterSize); at++)
      uses.set(at, (uses.get(at) ?? 0) + 1)
  }
  use(0)
  const l1 = Number(u64(40))
  const l1Entries = view.getUint32(36)
  use(l1, l1Entries * 8)
  const table = Number(u64(48))
  const tableSize = view.getUint32(56) * clusterSize
  use(table, tableSize)
  for (let at = table; at < table + tableSize; at += 8) if (u64(at)) use(Number(u64(at)))
  for (let index = 0; index < l1Entries; index++) {
    const l2 = Number(u64(l1 + 8 * index) & ADDRESS)
    if (l2 === 0) continue
    use(l2)
    for (let at = l2; at < l2 + clusterSize; at += 8) {
      const entry = u64(at)
      if ((entry >> 62n) & 1n) {
        const shift = 62n - (BigInt(view.getUint32(20)) - 8n)
        const offset = Number(entry & ((1n << shift) - 1n))
        const sectors = Number((entry & ((1n << 62n) - 1n)) >> shift)
        use(offset, (sectors + 1) * 512 - (offset % 512))
      } else if (entry & ADDRESS) use(Number(entry & ADDRESS))
    }
  }
  const count = (cluster: number): number => {
    const perBlock = clusterSize / 2
    const block = Number(u64(table + 8 * Math.floor(cluster / perBlock)))
    return block === 0 || block + 2 * (cluster % perBlock) >= bytes.length
      ? 0
      : view.getUint16(block + 2 * (cluster % perBlock))
  }
  let leaks = 0
  for (let cluster = 0; cluster < clusters; cluster++) {
    const used = uses.get(cluster) ?? 0
    if (used > count(cluster)) errors.push(`cluster ${cluster}: used ${used} times, counted ${count(cluster)}`)
    else if (used < count(cluster)) leaks++
  }
  return { errors, leaks }
}
