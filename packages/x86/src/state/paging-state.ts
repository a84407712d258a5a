/** State of the paging hardware beside the control registers: derived switches, the last walk's result, caches. No behaviour. */
import { CONTEXT_COUNT, FRAME, FRAME_BITS, FRAMES, REGION, REGION_BITS, REGIONS } from './layout.ts'
import { MAX_PHYSICAL_BITS } from './paging-entry.ts'

/**
 * Kind of an access. The bits are those of `PageFaultCode`, and two more. `smap`: user pages must not be accessed. `stack`: it is made through
 * SS, and #SS is raised where its address is not canonical.
 */
export const ACCESS = { read: 0, write: 2, user: 4, fetch: 16, smap: 32, stack: 64 } as const

/** The result of a translation is a page-aligned HPA or one of these, distinguished by bit 11. */
export const STATUS = 0x800
/** A page fault; `errorCode` holds its code. */
export const FAULT = STATUS | 1
/** The second stage exited to the hypervisor: the exit slot is set. */
export const ABANDONED = STATUS | 2
/** Not memory: `frame` holds the physical page. */
export const DEVICE = STATUS | 4

/**
 * In `frame`, above all page frame numbers: the page is the host's, because a leaf of the hypervisor's tables leads there. The access goes to the host's
 * bus without an exit.
 */
export const HOST_BUS_FRAME = 1 << (MAX_PHYSICAL_BITS - 12)
/** The same as a physical address: `ProcessorHost.readDevice` and `writeDevice` get the host-physical address added to it. */
export const HOST_BUS_BASE = HOST_BUS_FRAME * 4096

/** Paging modes. (SDM Vol. 3A, "Paging Modes and Control Bits") */
export const PAGING = { none: 0, bits32: 1, pae: 2, level4: 3, level5: 4 } as const

export const CACHE_MASK = (1 << FRAME_BITS) - 1
export const REGION_MASK = (1 << REGION_BITS) - 1

/** Extended-page-table pointer, decoded. */
export interface SecondStage {
  /** HPA of the EPT PML4 table. */
  readonly root: number
  /** EPT accessed and dirty flags are on. */
  readonly accessedDirty: boolean
}

/** First-stage tables of the hypervisor's, walked instead of the guest's own (shadow paging). They hold host-physical addresses. */
export interface HardwareRoot {
  /** HPA of the root table. */
  readonly root: number
  /** One of PAGING, not `none`. For PAE its four entries are loaded into `pdptes`. */
  readonly kind: number
}

/** The root of a walk. */
export interface Root {
  cr3: bigint
  hardwareRoot: HardwareRoot | undefined
}

/** In place of a PCID: of no address space. */
export const NO_PCID = -1

/** What the TLB keeps of one address space (layout.ts, CONTEXTS). */
export interface TlbContext {
  pcid: number
  /** While it is not the current one. */
  generation: number
  /** Its memory holds nothing of use, and must be cleared before it becomes the current one. */
  isEmpty: boolean
  /** It may have write tags of pages that hold code now. */
  writesUnchecked: boolean
  /** By hash of linear bits 63:21: the 2 MiB region of which parts may be in the TLB, as a key of tlb.ts. */
  readonly large: Int32Array
}

export class PagingState {
  /** Set by the hypervisor; `updatePaging` must follow a change. */
  hardwareRoot: HardwareRoot | undefined
  /** Set by the owner of the hooks: `walkFault` is also called for the guest's own tables. `updatePaging` must follow a change. */
  hooksFaults = false
  /** Derived: page faults call `walkFault` before the guest gets them. */
  asksFaults = false
  /** With a hardware root: the guest has paging off. */
  pagingOff = false
  /** With two roots, the translation state of the one that is not current. Changed only by paging/tlb/roots.ts. */
  readonly otherRoot: Root = { cr3: 0n, hardwareRoot: undefined }
  /** Two roots have the same tables: the other one's are not kept. */
  sharesTables = false
  /** Two: contexts 0 and 1 are those of the roots. One: contexts are those of PCIDs. */
  roots: 1 | 2 = 1
  // Derived from the control registers by `updatePaging`.
  kind: number = PAGING.none
  rootFrame = 0
  writeProtect = false
  smep = false
  global = false
  largePages32 = false
  /** Reserved bits in the upper half of every 64-bit entry. */
  reservedHigh = 0
  /** `PageFaultCode.fetch` if instruction fetches are distinguished, else 0. */
  fetchBit = 0
  /** Non-canonical addresses fault: sign bits that a linear address must repeat, as a shift count of its upper half. */
  canonicalShift = 16
  /** PDPTE registers of PAE paging: four pairs of low and high half. */
  readonly pdptes = new Int32Array(8)
  /** #AC is in force: CR0.AM, EFLAGS.AC, CPL 3. */
  alignmentCheck = false
  /** Data breakpoints in force: bit n for DRn. */
  watches = 0

  // Result of the last translation.
  frame = 0
  /** The page is dirty and may be written by this kind of access. */
  writable = false
  isGlobal = false
  /** 1 = 4 KiB, 2 = 2 or 4 MiB, 3 = 1 GiB. */
  level = 1
  linearLow = 0
  linearHigh = 0

  // The page fault in progress.
  errorCode = 0
  faultLow = 0
  faultHigh = 0

  /** Guest-physical page cache (layout.ts, FRAMES): rights are 1 read, 2 write and dirty, 4 execute. */
  readonly cache: Int32Array
  /** Paging-structure cache (layout.ts, REGIONS). */
  readonly regions: Int32Array
  /** TLB contexts by number; `context` is the current one's. Changed only by paging/tlb/. */
  readonly contexts: readonly TlbContext[] = Array.from({ length: CONTEXT_COUNT }, () => ({ pcid: NO_PCID, generation: 0, isEmpty: true, writesUnchecked: false, large: new Int32Array(4096) }))
  context = 0
  /** The current root. */
  get root(): number {
    return this.roots === 2 ? this.context : 0
  }
  /** The context that the next new PCID takes. */
  victim = 1
  /** Every generation is a new number, `lastGeneration` the latest. */
  lastGeneration = 0
  /** The current context's: paging-structure cache entries, jump cache entries and links of another generation are invalid. */
  generation = 0
  /** Jump cache entries and links that lead to global pages have this one instead, whatever the context. */
  globalGeneration = 0
  /** By hash of linear bits 63:30: parts of a 1 GiB page may be in the TLB. */
  readonly huge = new Uint8Array(1024)

  /** The vCPU's block in host memory, which also has the state that quick-fill.ts reads. */
  constructor(memory: ArrayBufferLike, base: number) {
    this.cache = new Int32Array(memory, base + FRAMES, (FRAME.entry << FRAME_BITS) >> 2).fill(-1)
    this.regions = new Int32Array(memory, base + REGIONS, (REGION.entry << REGION_BITS) >> 2).fill(-1)
  }
}

/** Bits of the upper half that lie above the physical address width. (SDM Vol. 3A, "Reserved bits in paging entries") */
export const ABOVE_PHYSICAL = 0x000fffff & ~((1 << (MAX_PHYSICAL_BITS - 32)) - 1)
