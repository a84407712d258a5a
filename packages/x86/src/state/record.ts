/**
 * The pre-decoded record of one instruction: byte offsets of its fields. Handlers read them, code/record-writer.ts writes them.
 * Register fields hold offsets into the vCPU block, so that no handler multiplies.
 */
export const RECORD = {
  /** i32: index of the handler in the table. */
  handler: 0,
  /** u16: offset in its page of the instruction's linear address. */
  ip: 4,
  /** u8: length in bytes. */
  length: 6,
  /** u8: instructions from this one to the block's end, inclusive: returned to the budget on a fault here. */
  remaining: 7,
  /** i32: register named by ModRM.reg. */
  reg: 8,
  /** i32: register named by ModRM.rm or the opcode; of a memory operand the base. */
  rm: 12,
  /** i32, i32, of a block's entry that a region has replaced: its page's table of indirect-jump targets, its exit records. */
  targets: 8,
  exits: 12,
  /** i32: index register, i32: its shift. RIP-relative operands hold the i64 displacement from `ripPage` here instead. */
  index: 16,
  scale: 20,
  /** i32, i32, of branches and of the record after a block: the linked block on another page, and the generation for which the link is valid. */
  far: 16,
  farGeneration: 20,
  /** i64, of the same: `ripPage` at that block. The page of the branch may be mapped at several addresses, followed by different pages. */
  farPage: 24,
  /** i32: segment register's block. Of a block's entry: its mode key. */
  segment: 24,
  mode: 24,
  /** i32, sign-extended. Of a block's entry: HPA of its first byte. */
  displacement: 28,
  host: 28,
  /** i64. Relative branches: target minus `ripPage`. Memory offsets (`O`): the offset. Block entry: instruction count. */
  immediate: 32,
  /** i32, of a block's entry: remaining runs before it is compiled. */
  heat: 36,
  /** i32, of a block's entry: initial value of `heat`. */
  heatAtStart: 16,
  /** i32: linked block (taken): NOT_LINKED until known, NEVER_LINKED if it must not be linked. */
  link: 40,
  /** i32: the same when not taken. Also ENTER's level, a far pointer's selector. */
  link2: 44,
  /** i32: register named by VEX.vvvv; the opcode of an x87 instruction. Neither branches nor has a second immediate. */
  vvvv: 44,
  escape: 44,
  size: 48,
} as const
