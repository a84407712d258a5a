/** What host and agent say to each other: frames of a header and a payload, little-endian. README.md, "The agent", specifies it; guests/agent is the other end. */

import { concatBytes, dataView, encodeText } from '../bytes.ts'

export const VERSION = 1
/** Length of the payload (4 bytes), command (2), kind (1), zero (1). */
export const HEADER_SIZE = 8
/** Bytes that may be under way: of a command's input, and of each of its outputs. */
export const WINDOW = 65_536
/** Longer ones the agent does not take; it sends none over 32 KiB. */
export const MOST_PAYLOAD = 262_144

export const ToAgent = { start: 1, input: 2, signal: 3, resize: 4, credit: 5, leave: 6 } as const
export const FromAgent = {
  hello: 0x81,
  output: 0x82,
  errors: 0x83,
  taken: 0x84,
  ended: 0x85,
  refused: 0x86,
  /** Of whoever is between: the guest or its agent has gone, and with it the command. */
  lost: 0x87,
} as const
const ON_TERMINAL = 1

/** What may be sent to a command, by its number in Linux: the host may have others. */
export const GUEST_SIGNALS = { SIGHUP: 1, SIGINT: 2, SIGQUIT: 3, SIGKILL: 9, SIGUSR1: 10, SIGUSR2: 12, SIGTERM: 15 } as const

export interface TerminalSize {
  readonly rows: number
  readonly columns: number
}

/** A command to run in the guest. */
export interface AgentCommand {
  /** Program and arguments. A program without a slash is looked for in the guest's PATH. */
  readonly words: readonly string[]
  /** Added to the guest's environment: `TERM=vt220`. */
  readonly environment?: readonly string[]
  /** It gets a terminal of this size, on which standard output and error are one; without, three pipes. */
  readonly terminal?: TerminalSize
}

export function frame(command: number, kind: number, payload: Uint8Array = new Uint8Array()): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE + payload.length)
  const view = dataView(bytes)
  view.setUint32(0, payload.length, true)
  view.setUint16(4, command, true)
  bytes[6] = kind
  bytes.set(payload, HEADER_SIZE)
  return bytes
}

export function numbers(...values: readonly number[]): Uint8Array {
  return new Uint8Array(Uint16Array.from(values).buffer)
}

export function startPayload({ words, environment = [], terminal }: AgentCommand): Uint8Array {
  const fixed = numbers(
    terminal ? ON_TERMINAL : 0,
    ...(terminal ? [terminal.rows, terminal.columns] : [0, 0]),
    words.length,
    environment.length,
  )
  return concatBytes([fixed, ...[...words, ...environment].map((word) => encodeText(`${word}\0`))])
}

/** Finds the frames in what came, in any pieces. */
export class FrameReader {
  #partial: Uint8Array = new Uint8Array()

  /** Calls `each` with every whole frame, whose payload is valid during the call. Gives the length of a frame that is too long, after which nothing can be understood. */
  read(bytes: Uint8Array, each: (command: number, kind: number, payload: Uint8Array) => void): number | undefined {
    const all = this.#partial.length > 0 ? concatBytes([this.#partial, bytes]) : bytes
    const view = dataView(all)
    let at = 0
    while (all.length - at >= HEADER_SIZE) {
      const length = view.getUint32(at, true)
      if (length > MOST_PAYLOAD) return length
      const end = at + HEADER_SIZE + length
      if (end > all.length) break
      each(view.getUint16(at + 4, true), all[at + 6]!, all.subarray(at + HEADER_SIZE, end))
      at = end
    }
    this.#partial = all.slice(at)
    return undefined
  }

  /** What is incomplete never comes. */
  clear(): void {
    this.#partial = new Uint8Array()
  }
}

export function creditPayload(output: 0 | 1, bytes: number): Uint8Array {
  const payload = new Uint8Array(8)
  payload[0] = output
  dataView(payload).setUint32(4, bytes, true)
  return payload
}
