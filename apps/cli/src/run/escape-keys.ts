/** Key sequences that control nonroot instead of the guest: Ctrl-A and a letter. */

const CTRL_A = 1

export type EscapeCommand = 'quit' | 'monitor' | 'help'
const COMMANDS: Readonly<Record<string, EscapeCommand>> = { x: 'quit', c: 'monitor', h: 'help', '?': 'help' }

export const ESCAPE_HELP = `
Ctrl-A X  quit
Ctrl-A C  monitor (info, stats, pause, ...)
Ctrl-A A  send Ctrl-A to the guest
Ctrl-A H  this help
`

/** Takes escapes out of what is typed. Keeps a Ctrl-A for the next bytes. */
export class EscapeKeys {
  readonly #onCommand: (command: EscapeCommand) => void
  #pending = false

  constructor(onCommand: (command: EscapeCommand) => void) {
    this.#onCommand = onCommand
  }

  /** What the guest gets. */
  filter(bytes: Uint8Array): Uint8Array {
    if (!this.#pending && !bytes.includes(CTRL_A)) return bytes
    const kept: number[] = []
    for (const byte of bytes) {
      if (!this.#pending) {
        if (byte === CTRL_A) this.#pending = true
        else kept.push(byte)
        continue
      }
      this.#pending = false
      const key = String.fromCharCode(byte).toLowerCase()
      const command = COMMANDS[key]
      if (command) this.#onCommand(command)
      else if (byte === CTRL_A || key === 'a') kept.push(CTRL_A)
      else kept.push(CTRL_A, byte)
    }
    return Uint8Array.from(kept)
  }
}
