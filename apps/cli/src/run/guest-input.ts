/**
 * Standard input for the guest. It is held until the guest can read it: from the start, or when our init announces a shell or a command. Kernels discard pending input of a serial port, and a command's input must not reach the shell before it.
 */

/** What our init announces (packages/image/README.md, "Marks"). */
export type Announced = 'shell' | 'command' | undefined

const BEGIN = new TextEncoder().encode('\x1b_nonroot:begin\x1b\\')
const [ESCAPE] = BEGIN
/** Ctrl-D: what a terminal gives for the end of input. */
const END_OF_INPUT = Uint8Array.of(4)
/** The prompt of our shell, `user@host:folder# `; folders may have spaces. */
const PROMPT = /^\S+@\S+:.*[#$] $/
const LONGEST_PROMPT = 256
const [NEWLINE, SPACE] = [10, 32]

export class GuestInput {
  /** Resolves when all is known that will ever come. */
  readonly ended: Promise<void>
  readonly #deliver: (bytes: Uint8Array) => void
  #held: Uint8Array[] | undefined = []
  #announced: Announced
  #isEnd = false
  #matched = 0
  /** What the guest wrote since its last line's end. */
  #line = ''
  #resolve!: () => void

  constructor(deliver: (bytes: Uint8Array) => void) {
    this.#deliver = deliver
    this.ended = new Promise((resolve) => (this.#resolve = resolve))
  }

  add(bytes: Uint8Array): void {
    if (this.#held) this.#held.push(bytes)
    else this.#deliver(bytes)
  }

  /** No more will come. */
  end(): void {
    this.#isEnd = true
    if (!this.#held) this.#tellEnd()
    this.#resolve()
  }

  /** The machine is there. */
  start(announced: Announced): void {
    this.#announced = announced
    if (!announced) this.#release()
  }

  /** The guest wrote this; the part to be shown goes to `show`. A command's mark is for the code that extracts its output, a shell's is for this class. */
  watch(output: Uint8Array, show: (bytes: Uint8Array) => void): void {
    if (!this.#held) {
      show(output)
      if (this.#announced === 'shell') for (const byte of output) this.#follow(byte)
      return
    }
    for (let at = 0; at < output.length; at++) {
      if (output[at] === BEGIN[this.#matched]) {
        if (++this.#matched < BEGIN.length) continue
        if (this.#announced === 'command') show(BEGIN)
        this.#release()
        if (at + 1 < output.length) this.watch(output.subarray(at + 1), show)
        return
      }
      if (this.#matched > 0) show(BEGIN.subarray(0, this.#matched))
      this.#matched = output[at] === ESCAPE ? 1 : 0
      if (this.#matched === 0) show(output.subarray(at, at + 1))
    }
  }

  #release(): void {
    const held = this.#held ?? []
    this.#held = undefined
    for (const bytes of held) this.#deliver(bytes)
    if (this.#isEnd) this.#tellEnd()
  }

  /**
   * The end of a file lasts, a Ctrl-D does not: what arrives while no line is edited is nothing to the shell later. So each prompt is reported again, at the moment it
   * stands there.
   */
  #follow(byte: number): void {
    this.#line = byte === NEWLINE ? '' : (this.#line + String.fromCharCode(byte)).slice(-LONGEST_PROMPT)
    if (this.#isEnd && byte === SPACE && PROMPT.test(this.#line)) this.#tellEnd()
  }

  /** As on a terminal. A guest that announces nothing may take Ctrl-D for something else. */
  #tellEnd(): void {
    if (this.#announced) this.#deliver(END_OF_INPUT)
  }
}
