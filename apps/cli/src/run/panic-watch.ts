/** Detects on the console that a Linux guest panicked, because it then hangs without any other sign. */

/** `[    1.234567] ---[ end Kernel panic - not syncing: VFS: ... ]---`: the last line of a panic. */
const LAST_LINE = /^(?:\[ *\d+\.\d+\](?:\[ *[TC]\d+\])? )?---\[ end (Kernel panic - not syncing.*?) \]---/
const LONGEST_LINE = 512

export class PanicWatch {
  #line = ''
  readonly #onPanic: (message: string) => void

  constructor(onPanic: (message: string) => void) {
    this.#onPanic = onPanic
  }

  feed(bytes: Uint8Array): void {
    for (const byte of bytes) {
      if (byte !== 10 && byte !== 13) {
        if (this.#line.length < LONGEST_LINE) this.#line += String.fromCharCode(byte)
        continue
      }
      const panic = this.#line.length > 20 ? LAST_LINE.exec(this.#line) : null
      this.#line = ''
      if (panic) this.#onPanic(panic[1]!)
    }
  }
}
