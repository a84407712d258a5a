/** A decoded block: a straight run of instructions from one address, as records. */

export interface Block {
  readonly host: number
  readonly mode: number
  /** Address of the first record, and the address after the last. */
  readonly first: number
  readonly end: number
  /** Bytes of code, from `host` on its page; an instruction may reach into `nextPage`. */
  readonly length: number
  /** HPA of the page that the last instruction crosses into, or -1. */
  readonly nextPage: number
}
