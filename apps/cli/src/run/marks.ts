/** Cuts a command's output out of the console, by the marks that our init puts around it (packages/image/README.md, "Marks"). */

const START = [0x1b, 0x5f] // ESC _
const STRING_TERMINATOR = 0x5c // after another ESC
const PREFIX = 'nonroot:'
/** Longer ones are none of ours. */
const LONGEST = 64
/** What is shown of the boot when it went wrong. */
const KEPT = 4096

export class Marks {
  /** As the closing mark says. */
  status: number | undefined
  readonly #show: (bytes: Uint8Array) => void
  readonly #onBegin: () => void
  #inside = false
  #held: number[] = []
  #before: number[] = []

  /** `onBegin` is called when the command begins to write on the console. */
  constructor(show: (bytes: Uint8Array) => void, onBegin: () => void = () => {}) {
    this.#show = show
    this.#onBegin = onBegin
  }

  get begun(): boolean {
    return this.#inside || this.status !== undefined
  }

  /** The last of what came outside the command. */
  get tail(): string {
    return new TextDecoder().decode(Uint8Array.from(this.#before))
  }

  feed(bytes: Uint8Array): void {
    const shown: number[] = []
    for (const byte of bytes) {
      this.#held.push(byte)
      if (this.#isPossible()) {
        if (this.#held.at(-1) !== STRING_TERMINATOR || this.#held.at(-2) !== 0x1b || this.#held.length < 4) continue
        const text = String.fromCharCode(...this.#held.slice(2, -2))
        if (text.startsWith(PREFIX)) {
          this.#held = []
          // What came before the mark belongs to the old side of it.
          this.#mark(text.slice(PREFIX.length), shown)
          continue
        }
      }
      this.#let(shown)
    }
    if (shown.length) this.#show(Uint8Array.from(shown))
  }

  /** Whether what is held can still become a mark. */
  #isPossible(): boolean {
    const held = this.#held
    return held.length <= LONGEST && held[0] === START[0] && (held.length < 2 || held[1] === START[1])
  }

  /** What is held is no mark; its last byte may start one. */
  #let(shown: number[]): void {
    const last = this.#held.at(-1)!
    const restart = this.#held.length > 1 && last === START[0]
    const passed = restart ? this.#held.slice(0, -1) : this.#held
    if (this.#inside) shown.push(...passed)
    else {
      this.#before.push(...passed)
      if (this.#before.length > 2 * KEPT) this.#before = this.#before.slice(-KEPT)
    }
    this.#held = restart ? [last] : []
  }

  #mark(text: string, shown: number[]): void {
    if (text === 'begin' && this.status === undefined && !this.#inside) {
      this.#inside = true
      this.#onBegin()
    }
    const status = /^status=(\d{1,3})$/.exec(text)
    if (!status || !this.#inside) return
    this.status = Number(status[1])
    this.#inside = false
    if (shown.length) this.#show(Uint8Array.from(shown))
    shown.length = 0
  }
}
