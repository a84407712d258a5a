/** In the low bit of what `dispatch` is told of a link: it is one to another page. */
export const FAR = 1

/** Long enough for any straight run that pays off, short enough that `remaining` fits its byte. */
export const MAX_INSTRUCTIONS = 64
/** Bytes that a block may have; bytes from a page's start that the blocks on it may have. */
export const LONGEST_BLOCK = MAX_INSTRUCTIONS * 15
export const PAGE_REACH = 0x1000 + 14

export const NEVER_LINKED = 0
export const NOT_LINKED = 1

/** Entries of eight bytes in a page's table of computed targets: i32 offset in the page, i32 link. */
export const TARGETS = 256

/**
 * Runs after which a block is compiled; and a count that never comes down to 0 in practice. Debian's boot takes least time near 4000: below,
 * compiling what runs little costs more than it saves, on processors that the guest runs on as well (docs/performance.md).
 */
export const HOT = 4000
export const NEVER_HOT = 0x7fff_ffff
/** So many regions are some 10 MiB of machine code: with each such crowd blocks must run HOT times more. gcc -O2 makes 26,000 otherwise. */
export const CROWD = 4096
/** With so many all code is dropped and made anew: what bounds the machine code of a process that never rests. */
export const MOST_REGIONS = 8 * CROWD

/** An x87 instruction's opcode as the `escape` field has it: the eleven bits that FSTENV shows. (SDM Vol. 1, "Last Instruction Opcode") */
export const escapeOf = (i: { opcode: number; mod: number; reg: number; rm: number }): number =>
  ((i.opcode & 7) << 8) | (i.mod << 6) | ((i.reg & 7) << 3) | (i.rm & 7)
