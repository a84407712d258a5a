/**
 * The symbols that a Linux kernel carries for itself, found in its image without any section header: kernels of distributions are
 * stripped, kallsyms stays. (Linux, "scripts/kallsyms.c" and "kernel/kallsyms.c")
 *
 * In memory, each at a multiple of 8: offsets (i32 a symbol), relative base, number of symbols, names, markers (where each 256th name
 * begins), perhaps sequence numbers (3 bytes a symbol), token table (256 strings), token index. Since Linux 6.4 offsets and relative base come last. A name is its length and
 * that many numbers of tokens; the first character of what they spell is the symbol's type.
 */
export interface KernelSymbol {
  readonly name: string
  /** As nm has it: `t`, `T`, `d`, ... */
  readonly type: string
  readonly address: bigint
}

const TOKENS = 256
const NAMES_A_MARKER = 256
const ALIGNMENT = 8
const KERNEL_SPACE = 0xffff_8000_0000_0000n

const aligned = (at: number): number => Math.ceil(at / ALIGNMENT) * ALIGNMENT

/** Undefined where the image has none that this can find. The image's own position in the file must be a multiple of 8, as in an ELF. */
export function readKallsyms(image: Uint8Array): KernelSymbol[] | undefined {
  const view = new DataView(image.buffer, image.byteOffset, image.byteLength)
  for (let from = 0; ;) {
    const table = findTokens(image, view, from)
    if (!table) return undefined
    const found = symbolsAround(image, view, table)
    if (found) return found
    from = table.digits + 1
  }
}

interface TokenTable {
  readonly tokens: readonly string[]
  readonly start: number
  /** Where the token `0` stands. */
  readonly digits: number
  /** Byte behind the token index. */
  readonly end: number
}

/** Ten digits are their own tokens in any kernel: that is what is looked for. */
const DIGITS = Uint8Array.from('0123456789', (digit) => digit.charCodeAt(0))

function findTokens(image: Uint8Array, view: DataView, from: number): TokenTable | undefined {
  const zero = DIGITS[0]!
  for (let at = image.indexOf(zero, from); at >= 0; at = image.indexOf(zero, at + 1)) {
    if (!DIGITS.every((digit, n) => image[at + 2 * n] === digit && image[at + 2 * n + 1] === 0)) continue
    let start = at
    for (let n = 0; n < zero && start > 0; n++) start = image.lastIndexOf(0, start - 2) + 1
    const offsets: number[] = []
    const tokens: string[] = []
    let end = start
    for (let n = 0; n < TOKENS; n++) {
      const zeroAt = image.indexOf(0, end)
      if (zeroAt < 0) return undefined
      offsets.push(end - start)
      tokens.push(String.fromCharCode(...image.subarray(end, Math.min(zeroAt, end + 64))))
      end = zeroAt + 1
    }
    const index = aligned(end)
    if (index + 2 * TOKENS > image.length) continue
    if (offsets.every((offset, n) => view.getUint16(index + 2 * n, true) === offset)) {
      return { tokens, start, digits: at, end: index + 2 * TOKENS }
    }
  }
  return undefined
}

/** Names are at most this long, all together. */
const MOST_BYTES = 32 << 20
const MOST_SYMBOLS = 4_000_000

function symbolsAround(image: Uint8Array, view: DataView, table: TokenTable): KernelSymbol[] | undefined {
  // The number of symbols stands before the names: what is right is known by the markers behind them.
  for (
    let at = table.start - (table.start % ALIGNMENT);
    at >= ALIGNMENT && at > table.start - MOST_BYTES;
    at -= ALIGNMENT
  ) {
    const count = view.getUint32(at, true)
    if (count < TOKENS || count > MOST_SYMBOLS || view.getUint32(at + 4, true) !== 0) continue
    if (!areNames(image, view, at + ALIGNMENT, count, table.start)) continue
    return withAddresses(view, readNames(image, at + ALIGNMENT, count, table.tokens), at, table.end)
  }
  return undefined
}

function areNames(image: Uint8Array, view: DataView, start: number, count: number, end: number): boolean {
  const marks: number[] = []
  let at = start
  for (let n = 0; n < count; n++) {
    if (n % NAMES_A_MARKER === 0) marks.push(at - start)
    const length = image[at]!
    at += length & 0x80 ? 2 + ((length & 0x7f) | (image[at + 1]! << 7)) : 1 + length
    if (at >= end) return false
  }
  const markers = aligned(at)
  return markers + 4 * marks.length <= end && marks.every((mark, n) => view.getUint32(markers + 4 * n, true) === mark)
}

function readNames(image: Uint8Array, start: number, count: number, tokens: readonly string[]): string[] {
  const names: string[] = []
  let at = start
  for (let n = 0; n < count; n++) {
    // Lengths of two bytes have the first's highest bit set. (Since Linux 6.1)
    let length = image[at++]!
    if (length & 0x80) length = (length & 0x7f) | (image[at++]! << 7)
    let name = ''
    for (const end = at + length; at < end; at++) name += tokens[image[at]!]!
    names.push(name)
  }
  return names
}

function withAddresses(
  view: DataView,
  names: readonly string[],
  countAt: number,
  behindTokens: number,
): KernelSymbol[] | undefined {
  const old = countAt - ALIGNMENT
  const isOld = old >= 0 && view.getBigUint64(old, true) >= KERNEL_SPACE
  const offsets = isOld ? Math.floor((old - 4 * names.length) / ALIGNMENT) * ALIGNMENT : aligned(behindTokens)
  const baseAt = isOld ? old : aligned(offsets + 4 * names.length)
  if (offsets < 0 || baseAt + 8 > view.byteLength) return undefined
  const base = view.getBigUint64(baseAt, true)
  if (base < KERNEL_SPACE) return undefined
  return names.map((name, n) => {
    const offset = view.getInt32(offsets + 4 * n, true)
    // With CONFIG_KALLSYMS_ABSOLUTE_PERCPU what is not negative is an absolute value, such as an offset of a per-CPU variable.
    const address = offset >= 0 ? BigInt(offset) : base - 1n - BigInt(offset)
    return { type: name.slice(0, 1), name: name.slice(1), address }
  })
}
