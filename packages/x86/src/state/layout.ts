/**
 * Layout of a vCPU's state in the shared memory: byte offsets from the vCPU's base, `cpu`. Facts only. The only table of offsets, for wasm code and
 * TypeScript.
 */

/** Size of one vCPU's block in bytes; caches and the TLB follow it. */
export const VCPU_SIZE = 0x2000

/** Segment registers in the manual's encoding order, then the system ones. */
export const SEGMENT = { es: 0, cs: 1, ss: 2, ds: 3, fs: 4, gs: 5, ldtr: 6, tr: 7, gdtr: 8, idtr: 9 } as const
export type SegmentName = keyof typeof SEGMENT

/** One segment register's hidden part. All offsets are relative to the segment's own start. */
export const SEG = {
  /** i64 linear base. */
  base: 0,
  /** i64: reads of [offset, offset + size) are allowed without further checks if offset + size <= readBound; 0 sends every access to the slow check. */
  readBound: 8,
  /** i64: the same for writes. */
  writeBound: 16,
  /** u32 limit in bytes, inclusive, granularity applied. */
  limit: 24,
  /** u32 selector (low 16 bits). */
  selector: 28,
  /** u32 access rights in the VMCS format: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16. */
  attributes: 32,
  size: 48,
} as const

const GPR = 0x000
const SEGMENTS = 0x100

/** Offset of general register `n` (0 = RAX .. 15 = R15), an i64. */
export const gpr = (n: number): number => GPR + n * 8
/** Offset of segment register `n`'s block. */
export const segment = (n: number): number => SEGMENTS + n * SEG.size
/** Offset of XMM register `n`, 16 bytes. */
export const xmm = (n: number): number => S.xmm + n * 16
/** Offset of physical x87 register `n`, 16 bytes: significand u64, sign and exponent u16. MMX register n is its significand. */
export const fpr = (n: number): number => S.fpr + n * 16

export const RAX = 0, RCX = 1, RDX = 2, RBX = 3, RSP = 4, RBP = 5, RSI = 6, RDI = 7

/** Scalar slots. i64 unless the name's comment says i32. */
export const S = {
  gpr: GPR,
  /** Always zero: read as "no base", "no index" and the base of a flat segment. */
  zero: 0x80,
  /** RIP of the next instruction; out of date inside a block, except where code stores it. */
  rip: 0x88,
  /** RIP minus page offset of the linear address, for the page of the running block. */
  ripPage: 0x90,

  // Status flags, in separate slots so that each can be dead separately.
  /** i32 0 or 1. */
  cf: 0x98,
  /** i32: AF is bit 4. */
  af: 0x9c,
  /** i64: OF is bit 63. */
  of: 0xa0,
  /** i64: ZF = (value == 0). */
  zr: 0xa8,
  /** i64: SF is bit 63, PF is the even parity of the low 8 bits. */
  sp: 0xb0,
  /** i32: all other RFLAGS bits (TF, IF, DF, IOPL, NT, RF, VM, AC, VIF, VIP, ID) in place; bit 1 set; status bits zero. */
  flags: 0xb8,
  /** i32: CPL. */
  cpl: 0xbc,
  /** i32: mode key of the running code (see state/mode.ts). */
  mode: 0xc0,
  /** i32: address of the current TLB bank, one of those at `banks`. */
  tlb: 0xc4,
  /** i64: added to RIP to form the linear address: CS base, 0 in 64-bit mode. */
  csBase: 0xc8,
  /** i32: instructions left in this chunk of the slice (state/slice.ts). */
  budget: 0xd0,
  /** i32: non-zero while the next instruction is in an interrupt shadow: SHADOW (state/shadow.ts). */
  shadow: 0xd4,
  /** i32: non-zero if an event is pending that the run loop must check as soon as interrupts are enabled. */
  attention: 0xd8,
  /** i32: why wasm code returned to the run loop (see EXIT). */
  exit: 0xdc,
  /** i32 vector of the exception to deliver, for EXIT.exception. */
  vector: 0xe0,
  /** i32 its error code. */
  errorCode: 0xe4,
  /** i32: length of the instruction that called a system routine. */
  length: 0xe8,
  /** i32: record at which wasm code was left (RIP = ripPage + its ip), for exits that have one. */
  record: 0xec,
  /** i32: HPA found by `slowModify` for the following write; that of the value slot if it must use `slowWrite`. */
  modify: 0xf0,
  /** i32: NMI blocking by an NMI in service. */
  nmiBlocked: 0xf4,
  /** i32: PAUSE may exit, and calls the intercept hook. */
  pauseExits: 0xf8,
  /** i32: address of the current TLB context (paging/tlb/contexts.ts), which begins with its banks. */
  banks: 0xfc,

  /** Linear address passed to slow paths. */
  address: 0x300,
  /** 16 bytes: value passed to or from slow paths. */
  value: 0x310,
  /** Eight i64 arguments of system routines. */
  args: 0x320,
  /** 32 bytes of scratch space inside one instruction. */
  temp: 0x360,

  cr0: 0x380,
  cr2: 0x388,
  cr3: 0x390,
  cr4: 0x398,
  cr8: 0x3a0,
  xcr0: 0x3a8,
  efer: 0x3b0,
  /** DR0..DR3, DR6, DR7 */
  dr0: 0x3b8,
  dr1: 0x3c0,
  dr2: 0x3c8,
  dr3: 0x3d0,
  dr6: 0x3d8,
  dr7: 0x3e0,
  star: 0x3e8,
  lstar: 0x3f0,
  cstar: 0x3f8,
  fmask: 0x400,
  kernelGsBase: 0x408,
  sysenterCs: 0x410,
  sysenterEsp: 0x418,
  sysenterEip: 0x420,
  pat: 0x428,
  tscAux: 0x430,
  apicBase: 0x438,
  miscEnable: 0x440,
  tscOffset: 0x448,
  /** i32: address of the block hash table (code/block-table.ts). */
  blockTable: 0x450,
  /** i32: changes whenever a translation of the current context may have become invalid: PagingState's `generation`. */
  generation: 0x454,
  xss: 0x458,
  /** i32: address of `HostMemory.codeHolders`; 0: it is in another memory, and fills in wasm are off (paging/tlb/quick-fill.ts). */
  codeHolders: 0x460,
  /** i32: instructions of the slice beyond the chunk in `budget` (state/slice.ts). */
  reserve: 0x464,
  /** i32 and i32, written by any thread: non-zero requests that the slice ends; the era. (`KickAddress` of the contracts) */
  kick: 0x468,
  /** i32: changes whenever a global translation may have become invalid: PagingState's `globalGeneration`. */
  globalGeneration: 0x470,

  // x87, SSE
  /** 16 bytes each, eight of them. */
  fpr: 0x500,
  /** i32 control word. */
  fpuControl: 0x580,
  /** i32 status word with TOP in bits 13:11. */
  fpuStatus: 0x584,
  /** i32: bit n set = physical register n is not empty. */
  fpuTag: 0x588,
  /** i32 last opcode. */
  fpuOpcode: 0x58c,
  fpuIp: 0x590,
  fpuDp: 0x598,
  /** i32 selectors of the last instruction and operand (FCS low half, FDS high half). */
  fpuSelectors: 0x5a0,
  /** i32 */
  mxcsr: 0x5a4,
  /** i32: exception flags newly raised by an exact routine and unmasked; the caller clears it. */
  floatException: 0x5a8,
  /** 16 registers of 16 bytes. */
  xmm: 0x600,
  /** Upper halves of YMM, for AVX later. */
  ymmHigh: 0x700,
  /** i32: how to compute the status flags from the three slots below; 0: they are in cf .. sp. (code/lazy-flags.ts) */
  lazyKind: 0x5ac,
  lazyLeft: 0x5b0,
  lazyRight: 0x5b8,
  lazyResult: 0x5c0,
  /** A record of its own for compiled code, which has none: RECORD's ip, length and remaining. 48 bytes. */
  compiledRecord: 0x5d0,
  /** Statistics, i64 each: slow reads, slow writes, TLB fills, dispatches. */
  statistics: 0x800,
} as const

/** Why a wasm function returned to the run loop. */
export const EXIT = {
  /** Continue at RIP (the mode may have changed). */
  none: 0,
  /** No block is known for RIP: find or decode one. */
  lookup: 1,
  /** The slice is used up. */
  budget: 2,
  /** Deliver the fault `vector` with `errorCode`, raised at `record`. */
  exception: 3,
  /** HLT. RIP is after it. */
  halt: 4,
  /** A system routine stops the run loop, with its reason in the processor object. */
  stop: 5,
  /** Interrupts may have been enabled: check for pending events. */
  attention: 6,
  /** An access of the instruction at `record` exited to the hypervisor: the instruction has had no effect. */
  abandoned: 7,
  /** The instruction at `record` crosses into a page that must be checked again. */
  crossing: 8,
  /** The block at `record` is hot: compile it. It is entered again in any case. */
  hot: 9,
  /** Compiled code reached an instruction at `record` that the interpreter must execute. It has had no effect yet. */
  interpret: 10,
  /** A triple fault inside a system routine. */
  shutdown: 11,
} as const

/** Software TLB: a bank is TLB_ENTRIES entries of TLB_ENTRY bytes, direct mapped by linear page number. */
export const TLB_BITS = 11
export const TLB_ENTRIES = 1 << TLB_BITS
export const TLB = {
  /** i64 tags: linear page address if the access is allowed without further checks, else -1. */
  read: 0,
  write: 8,
  execute: 16,
  /** i32: add to the low 32 bits of the linear address to get the HPA. */
  addend: 24,
  /** i32: 1 when the translation is global. */
  global: 28,
  entry: 32,
} as const
/** Banks: supervisor with SMAP in force, supervisor with SMAP out of force, user. */
export const TLB_BANK = { supervisor: 0, supervisorUserAllowed: 1, user: 2, count: 3 } as const
export const TLB_BANK_SIZE = TLB_ENTRIES * TLB.entry

/**
 * Jump cache: blocks by RIP, for 64-bit code; JUMP_ENTRIES entries of 16 bytes after the vCPU's block. An entry is valid for its generation, during
 * which the mapping of the block has not changed, and for the block's own mode.
 */
export const JUMP_CACHE = VCPU_SIZE
export const JUMP_BITS = 12
export const JUMP_ENTRIES = 1 << JUMP_BITS
/** i64 RIP, i32 generation, i32 address of the block. */
export const JUMP = { rip: 0, generation: 8, block: 12, entry: 16 } as const

/**
 * The walker's caches, after the jump cache. Regions: a paging-structure cache of 4-level paging, by 2 MiB of linear addresses. Frames: the second
 * stage's, by frame number of the guest. Both are directly mapped.
 */
export const REGIONS = JUMP_CACHE + JUMP_ENTRIES * JUMP.entry
export const REGION_BITS = 8
export const REGION = {
  /** i32s: bits of the address above 21, and the generation for which the entry is valid. */
  key: 0, generation: 4,
  /** i32: frame of the page table, or of the 2 MiB that a large page maps here. */
  frame: 8,
  /** i32: word index of the page table in the host's memory; -1: a large page. */
  table: 12,
  /** i32: bits 1 and 2 of all levels, a large page's own too; bit 31: their execute-disable. */
  rights: 16,
  /** i32, i32: a large page's entry, lower half, and its level. */
  leaf: 20, level: 24,
  entry: 32,
} as const
export const FRAMES = REGIONS + (REGION.entry << REGION_BITS)
export const FRAME_BITS = 14
/** i32 frame, i32 HPA of the page | rights. */
export const FRAME = { frame: 0, page: 4, entry: 8 } as const
/** PagingState for the walker in wasm, i32 each: how it may fill the TLB (paging/tlb/quick-fill.ts), reserved bits in upper halves of entries. */
export const QUICK_FILL = FRAMES + (FRAME.entry << FRAME_BITS)
export const RESERVED_HIGH = QUICK_FILL + 4
/** i32: not 0 once a global page of the lower half of the address space has been in the TLB. */
export const LOW_GLOBALS = QUICK_FILL + 8

/**
 * TLB contexts, one for each address space whose translations are kept: its banks, and a journal. Offsets within a context, i32 each: how many entries
 * were filled since the last flush, and their word indices; beyond JOURNAL_SIZE not all are known.
 */
export const JOURNAL_COUNT = TLB_BANK.count * TLB_BANK_SIZE
export const JOURNAL = JOURNAL_COUNT + 16
export const JOURNAL_SIZE = 4096
export const CONTEXT_SIZE = JOURNAL + JOURNAL_SIZE * 4
/** Linux has six address spaces at a time, and one of its own. */
export const CONTEXT_COUNT = 8
export const CONTEXTS = QUICK_FILL + 16

/** Total bytes of one vCPU. */
export const VCPU_TOTAL = CONTEXTS + CONTEXT_COUNT * CONTEXT_SIZE
