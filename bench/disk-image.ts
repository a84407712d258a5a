/** The image under test: the first word of each sector says which it is. Written before a run and looked at after it. */
import { closeSync, openSync, readSync, writeSync } from 'node:fs'

const SECTOR = 512
const BLOCK = 4096
const MIB = 2 ** 20
const SPREAD = 0x9e37_79b9_7f4a_7c15n
const MASK = 2n ** 64n - 1n
/** As diskbench steps through the blocks. */
const STEP = 40503n

const word = (sector: number, written: boolean): bigint => (BigInt(sector) * SPREAD + (written ? 1n : 0n)) & MASK

/** Real blocks, not holes, and in the page cache. */
export function writeImage(path: string, mib: number): void {
  const file = openSync(path, 'w')
  const piece = Buffer.alloc(MIB, 0xc3)
  for (let at = 0; at < mib; at++) {
    for (let sector = 0; sector < MIB / SECTOR; sector++)
      piece.writeBigUInt64LE(word(at * (MIB / SECTOR) + sector, false), sector * SECTOR)
    writeSync(file, piece, 0, MIB, at * MIB)
  }
  closeSync(file)
}

export interface Expected {
  readonly size: number
  readonly requests: number
  readonly passes: number
  /** By test, as the guest has them. */
  readonly sums: Readonly<Record<string, string>>
}

/** What is wrong with what the guest read and wrote, if anything. */
export function checkImage(path: string, { size, requests, passes, sums }: Expected): string | undefined {
  const sectors = (size * MIB) / SECTOR
  const blocks = BigInt((size * MIB) / BLOCK)
  const sumOf = (written: boolean, first: number, count: number): bigint => {
    let sum = 0n
    for (let sector = first; sector < first + count; sector++) sum += word(sector, written)
    return sum
  }
  for (const written of [false, true]) {
    const what = written ? 'write' : 'read'
    let random = 0n
    for (let request = 0n; request < BigInt(requests); request++)
      random += sumOf(written, Number((request * STEP) % blocks) * (BLOCK / SECTOR), BLOCK / SECTOR)
    const sequential = sumOf(written, 0, sectors) * BigInt(passes)
    for (const [test, sum] of [
      [`random-${what}`, random],
      [`sequential-${what}`, sequential],
      ...(written ? [] : [['cached-read', sequential] as const]),
    ] as const) {
      const right = (sum & MASK).toString(16)
      if (sums[test] !== right) return `${test} came to ${sums[test] ?? 'nothing'}, not ${right}`
    }
  }
  const file = openSync(path, 'r')
  const first = Buffer.alloc(8)
  try {
    for (let sector = 0; sector < sectors; sector++) {
      readSync(file, first, 0, 8, sector * SECTOR)
      if (first.readBigUInt64LE() !== word(sector, true)) return `sector ${sector} of the image was not written`
    }
  } finally {
    closeSync(file)
  }
  return undefined
}
