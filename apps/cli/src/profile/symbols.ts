/** Names of addresses: from a System.map, an ELF's symbol table, or a kernel image's own. Independent of the guest. */
import { bzImagePayload, extractVmlinux } from '@nonroot/image'
import { readKallsyms } from './kallsyms.ts'

export interface NamedAddress {
  readonly name: string
  /** As nm has it. Empty where it is not known. */
  readonly type: string
  readonly address: bigint
}

/** Types of what is run. (nm(1)) */
const CODE_TYPES = 'tTwWiuV'

export class Symbols {
  readonly #starts: BigUint64Array
  readonly #names: string[]
  readonly #byName = new Map<string, bigint>()

  constructor(list: readonly NamedAddress[]) {
    for (const { name, address } of list) if (!this.#byName.has(name)) this.#byName.set(name, address)
    const code = list
      .filter(({ type, address }) => CODE_TYPES.includes(type) && address > 0n)
      .toSorted((a, b) => (a.address < b.address ? -1 : a.address > b.address ? 1 : 0))
    // Of several names at one address the first is taken.
    const distinct = code.filter(({ address }, n) => n === 0 || address !== code[n - 1]!.address)
    this.#starts = BigUint64Array.from(distinct, ({ address }) => address)
    this.#names = distinct.map(({ name }) => name)
  }

  get size(): number {
    return this.#names.length
  }

  addressOf(name: string): bigint | undefined {
    return this.#byName.get(name)
  }

  /** The function that an address lies in, by where the next one begins; undefined far behind the last. */
  at(address: bigint): string | undefined {
    const starts = this.#starts
    let low = 0
    let high = starts.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (starts[middle]! <= address) low = middle + 1
      else high = middle
    }
    if (low === 0 || address - starts[low - 1]! > FARTHEST) return undefined
    return this.#names[low - 1]
  }
}
const FARTHEST = 1n << 20n

/** By what the file is; undefined where it names nothing. */
export async function symbolsOf(
  bytes: Uint8Array<ArrayBuffer>,
  decompressors: Parameters<typeof extractVmlinux>[1],
): Promise<Symbols | undefined> {
  if (isElf(bytes)) return made(readElfSymbols(bytes)) ?? made(readKallsyms(bytes))
  const map = parseSystemMap(bytes)
  if (map) return made(map)
  if (!isBzImage(bytes)) return undefined
  return made(readKallsyms(await extractVmlinux(bytes, decompressors)))
}
const made = (list: readonly NamedAddress[] | undefined): Symbols | undefined =>
  list?.length ? new Symbols(list) : undefined

const isElf = (bytes: Uint8Array): boolean =>
  bytes[0] === 0x7f && bytes[1] === 0x45 && bytes[2] === 0x4c && bytes[3] === 0x46
function isBzImage(bytes: Uint8Array<ArrayBuffer>): boolean {
  try {
    return bzImagePayload(bytes).length > 0
  } catch {
    return false
  }
}

/** Lines of `address type name`. Undefined where the file does not begin with one. */
export function parseSystemMap(bytes: Uint8Array): NamedAddress[] | undefined {
  const line = /^([0-9a-f]{8,16}) ([a-zA-Z?]) (\S+)/
  const start = new TextDecoder('latin1').decode(bytes.subarray(0, 256))
  if (!line.test(start)) return undefined
  const found: NamedAddress[] = []
  for (const text of new TextDecoder('latin1').decode(bytes).split('\n')) {
    const match = line.exec(text)
    if (match) found.push({ address: BigInt(`0x${match[1]}`), type: match[2]!, name: match[3]! })
  }
  return found
}

const SHT_SYMTAB = 2
const SHT_DYNSYM = 11
const STT_FUNC = 2

/** Functions and the other symbols of an ELF's symbol tables. (System V ABI, "Symbol Table") */
export function readElfSymbols(bytes: Uint8Array): NamedAddress[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const wide = bytes[4] === 2
  const word = (at: number): number => (wide ? Number(view.getBigUint64(at, true)) : view.getUint32(at, true))
  const found: NamedAddress[] = []
  try {
    const table = word(wide ? 40 : 32)
    const entrySize = view.getUint16(wide ? 58 : 46, true)
    const count = view.getUint16(wide ? 60 : 48, true)
    const section = (n: number) => {
      const at = table + n * entrySize
      const field = (wideAt: number, narrowAt: number) => word(at + (wide ? wideAt : narrowAt))
      return {
        type: view.getUint32(at + 4, true),
        offset: field(24, 16),
        size: field(32, 20),
        link: view.getUint32(at + (wide ? 40 : 24), true),
      }
    }
    for (let n = 0; n < count; n++) {
      const { type, offset, size, link } = section(n)
      if (type !== SHT_SYMTAB && type !== SHT_DYNSYM) continue
      const names = section(link)
      const each = wide ? 24 : 16
      for (let at = offset; at + each <= offset + size; at += each) {
        const info = view.getUint8(at + (wide ? 4 : 12))
        if (view.getUint16(at + (wide ? 6 : 14), true) === 0) continue // undefined here
        const nameAt = names.offset + view.getUint32(at, true)
        const end = bytes.indexOf(0, nameAt)
        const name = new TextDecoder('latin1').decode(bytes.subarray(nameAt, end))
        const address = wide ? view.getBigUint64(at + 8, true) : BigInt(view.getUint32(at + 4, true))
        // Assembly's labels have no type.
        if (name) found.push({ name, address, type: (info & 15) === STT_FUNC || (info & 15) === 0 ? 'T' : 'D' })
      }
    }
  } catch (error) {
    if (!(error instanceof RangeError)) throw error // the file is cut short: what was found is good
  }
  return found
}
