/** Several consoles on one output: each line carries the name of its VM. Incomplete lines, such as prompts, are shown after a while. */

/** How long an unfinished line waits for its end. */
const PATIENCE_MS = 100
/** A line that is longer is cut. */
const LONGEST = 8192
const [NEWLINE, RETURN, TAB, ESCAPE, DELETE] = [10, 13, 9, 0x1b, 0x7f]
/** Foregrounds that are readable on light and dark screens. */
const COLORS = [36, 33, 32, 35, 34, 31]
const RESET = '\x1b[0m'

export interface LineOutput {
  write(bytes: Uint8Array, done: () => void): void
  /** Lines are for a person's screen: names in colour, and of a guest's control sequences only colours. */
  readonly isScreen: boolean
}

/** One VM's way to the output. */
export interface LineSource {
  feed(bytes: Uint8Array, done: () => void): void
  /** Shows what is unfinished. */
  flush(): void
}

export class LinePrinter {
  readonly #output: LineOutput
  /** Who has written a line without its end. */
  #open: Source | undefined

  constructor(output: LineOutput) {
    this.#output = output
  }

  /** Names are padded to `width`. */
  add(name: string, index: number, width: number): LineSource {
    const label = `${name.padEnd(width)}| `
    const { isScreen } = this.#output
    const prefix = isScreen ? `\x1b[${COLORS[index % COLORS.length]}m${label}${RESET}` : label
    return new Source(prefix, isScreen, (source, pieces, done) => this.#print(source, pieces, done))
  }

  #print(source: Source, pieces: Piece[], done: () => void): void {
    let text: Uint8Array[] = []
    for (const { bytes, ended } of pieces) {
      if (this.#open && this.#open !== source) text.push(LINE_END)
      if (this.#open !== source) text.push(source.prefix)
      text.push(bytes)
      if (ended) text.push(source.isScreen ? STYLED_END : LINE_END)
      this.#open = ended ? undefined : source
    }
    this.#output.write(Buffer.concat(text), done)
  }
}

const encode = (text: string): Uint8Array => new TextEncoder().encode(text)
const LINE_END = encode('\n')
const STYLED_END = encode(`${RESET}\n`)

interface Piece {
  readonly bytes: Uint8Array
  readonly ended: boolean
}

class Source implements LineSource {
  readonly prefix: Uint8Array
  readonly isScreen: boolean
  readonly #print: (source: Source, pieces: Piece[], done: () => void) => void
  #line: number[] = []
  #timer: NodeJS.Timeout | undefined

  constructor(prefix: string, isScreen: boolean, print: (source: Source, pieces: Piece[], done: () => void) => void) {
    this.prefix = encode(prefix)
    this.isScreen = isScreen
    this.#print = print
  }

  feed(bytes: Uint8Array, done: () => void): void {
    clearTimeout(this.#timer)
    const pieces: Piece[] = []
    for (const byte of bytes) {
      if (byte === NEWLINE) pieces.push(this.#take(true))
      else if (this.#line.push(byte) >= LONGEST) pieces.push(this.#take(true))
    }
    if (this.#line.length > 0) {
      this.#timer = setTimeout(() => this.flush(), PATIENCE_MS)
      this.#timer.unref()
    }
    if (pieces.length > 0) this.#print(this, pieces, done)
    else done()
  }

  flush(): void {
    clearTimeout(this.#timer)
    if (this.#line.length > 0) this.#print(this, [this.#take(false)], () => {})
  }

  #take(ended: boolean): Piece {
    const line = this.#line
    this.#line = []
    if (ended && line.at(-1) === RETURN) line.pop()
    return { bytes: Uint8Array.from(this.isScreen ? harmless(line) : line), ended }
  }
}

/** Without what would leave the line: control characters, and escape sequences other than colours. */
function harmless(line: readonly number[]): number[] {
  const kept: number[] = []
  for (let at = 0; at < line.length; at++) {
    const byte = line[at]!
    if (byte === ESCAPE) {
      const end = sequenceEnd(line, at)
      if (line[end - 1] === 0x6d && line[at + 1] === 0x5b) kept.push(...line.slice(at, end))
      at = end - 1
    } else if (byte === TAB || (byte >= 0x20 && byte !== DELETE)) kept.push(byte)
  }
  return kept
}

/** Behind the escape sequence at `at`: CSI up to its final byte, strings up to BEL or ST, others of two characters. */
function sequenceEnd(line: readonly number[], at: number): number {
  const kind = line[at + 1]
  let end = at + 2
  if (kind === 0x5b) {
    while (end < line.length && (line[end]! < 0x40 || line[end]! > 0x7e)) end++
    return Math.min(end + 1, line.length)
  }
  if (kind === 0x5d || kind === 0x50 || kind === 0x5f || kind === 0x5e || kind === 0x58) {
    while (end < line.length && line[end] !== 7 && !(line[end - 1] === ESCAPE && line[end] === 0x5c)) end++
    return Math.min(end + 1, line.length)
  }
  return Math.min(end, line.length)
}
