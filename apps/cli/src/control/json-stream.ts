/** Cuts a stream of bytes into JSON objects: with or without line breaks between them, as QMP clients send them. */

/** A command that is longer is refused. */
export const LONGEST = 64 * 1024

const [NEWLINE, QUOTE, BACKSLASH, OPEN, CLOSE] = [10, 0x22, 0x5c, 0x7b, 0x7d]
const isSpace = (byte: number): boolean => byte === 0x20 || (byte >= 9 && byte <= 13)

export type JsonPiece =
  | { readonly kind: 'object'; readonly text: string }
  /** A line that begins no object. */
  | { readonly kind: 'garbage' }
  /** An object has no end after as many bytes as are allowed: nothing that follows can be understood. */
  | { readonly kind: 'tooLong' }

/**
 * ```
 * between ── { ──► inside ── its } ──► between
 *    │ ▲
 *    │ └── end of line ── skipping
 *    └───── any other ──────►
 * ```
 */
export class JsonStream {
  readonly #longest: number
  #state: 'between' | 'inside' | 'skipping' = 'between'
  #bytes: number[] = []
  #depth = 0
  #inString = false
  #isEscaped = false

  constructor(longest = LONGEST) {
    this.#longest = longest
  }

  feed(chunk: Uint8Array): JsonPiece[] {
    const pieces: JsonPiece[] = []
    for (const byte of chunk) {
      const piece = this.#take(byte)
      if (piece) pieces.push(piece)
      if (piece?.kind === 'tooLong') break
    }
    return pieces
  }

  #take(byte: number): JsonPiece | undefined {
    if (this.#state === 'skipping') {
      if (byte === NEWLINE) this.#state = 'between'
      return undefined
    }
    if (this.#state === 'between') {
      if (isSpace(byte)) return undefined
      if (byte !== OPEN) {
        this.#state = 'skipping'
        return { kind: 'garbage' }
      }
      this.#state = 'inside'
    }
    if (this.#bytes.push(byte) > this.#longest) return { kind: 'tooLong' }
    if (this.#inString) {
      if (this.#isEscaped) this.#isEscaped = false
      else if (byte === BACKSLASH) this.#isEscaped = true
      else if (byte === QUOTE) this.#inString = false
    } else if (byte === QUOTE) this.#inString = true
    else if (byte === OPEN) this.#depth++
    else if (byte === CLOSE && --this.#depth === 0) return this.#whole()
    return undefined
  }

  #whole(): JsonPiece {
    const text = new TextDecoder().decode(Uint8Array.from(this.#bytes))
    this.#bytes = []
    this.#state = 'between'
    return { kind: 'object', text }
  }
}
