/** The low bit of the link that `dispatch` receives: it is a link to another page. */
export const FAR = 1

/** Long enough for straight-line code, and short enough that `remaining` fits in a byte. */
export const MAX_INSTRUCTIONS = 64
/** Bytes that a block may have; bytes from a page's start that the blocks on it may have. */
export const LONGEST_BLOCK = MAX_INSTRUCTIONS * 15
export const PAGE_REACH = 0x1000 + 14

export const NEVER_LINKED = 0
export const NOT_LINKED = 1

/** Entries of eight bytes in a page's table of indirect-jump targets: i32 offset in the page, i32 link. */
export const TARGETS = 256

/**
 * Runs after which a block is compiled; and a count that never reaches 0 in practice. Debian boots fastest near 4000: with lower values, compiling
 * code that runs little costs more than it saves, on processors that also run the guest (docs/performance.md).
 */
export const HOT = 4000
export const NEVER_HOT = 0x7fff_ffff
/** So many regions are about 10 MiB of machine code: for each such group, blocks must run HOT times more. Otherwise gcc -O2 makes 26,000 regions. */
export const CROWD = 4096
/** With so many regions all code is dropped and compiled again, which bounds the machine code of a process that runs continuously. */
export const MOST_REGIONS = 8 * CROWD

/** An x87 instruction's opcode as the `escape` field has it: the eleven bits that FSTENV shows. (SDM Vol. 1, "Last Instruction Opcode") */
export const escapeOf = (i: { opcode: number; mod: number; reg: number; rm: number }): number =>
  ((i.opcode & 7) << 8) | (i.mod << 6) | ((i.reg & 7) << 3) | (i.rm & 7)
