/** Our processor's side of the oracle: runs single instructions in user mode on states of a batch. */
import { createTestHostMemory } from '@nonroot/testkit'
import { Core, type ProcessorHost } from '../../src/state/core.ts'
import { floatImports } from '../../src/float/imports.ts'
import { BlockCache } from '../../src/code/blocks.ts'
import { Handlers } from '../../src/interpreter/handlers.ts'
import { BLOCK_TABLE_SIZE } from '../../src/code/block-table.ts'
import { RECORD } from '../../src/state/record.ts'
import { slowModify, slowRead, slowWrite, updatePaging } from '../../src/paging/index.ts'
import { EXIT, fpr, S, SEGMENT, VCPU_TOTAL, xmm } from '../../src/state/layout.ts'
import { resetProcessor } from '../../src/control/reset.ts'
import { checkSegment, setSegment } from '../../src/state/segments.ts'
import { RIGHTS } from '../../src/state/register-bits.ts'
import { updateMode } from '../../src/control/update-mode.ts'
import { CODE, CODE_PAGES, DATA, DATA_SIZE, FX, MIDDLE, MIDDLE_SIZE, STATE, TAIL, TAIL_SIZE, USES, type Batch } from './batch.ts'

const PRESENT_WRITE_USER = 7
const PRESENT_USER = 5
const NO_EXCEPTION = 0xffff_ffff
const PF = 14
const LEFT = 1

export class Machine {
  readonly #core: Core
  readonly #handlers: Handlers
  readonly #blocks: BlockCache
  readonly #code: number
  readonly #data: number
  /** System routines that semantics asked for: the oracle has none. */
  readonly missing = new Set<string>()
  readonly #routines: string[] = []

  constructor(codeSize: 32 | 64) {
    const memory = createTestHostMemory(16384)
    const take = (bytes: number): number => memory.allocateFrames(Math.ceil(bytes / 4096), 1)!
    const host: ProcessorHost = {
      memory,
      hostAddress: (physical: number) => physical,
      readPort: () => 0,
      writePort: () => {},
      readDevice: () => 0,
      writeDevice: () => {},
      readTsc: () => 0n,
      readMsr: () => undefined,
      writeMsr: () => false,
      random64: () => 0n,
      readTaskPriority: () => 0,
      writeTaskPriority: () => {},
    } as unknown as ProcessorHost
    const core = (this.#core = new Core(host, take(VCPU_TOTAL)))
    const slow = (f: (core: Core, info: number) => number) => ({
      params: ['i32', 'i32'] as const, results: ['i32'] as const, function: (_cpu: number, info: number) => f(core, info),
    })
    this.#handlers = new Handlers({
      memory: memory.memory,
      systemRoutine: (name) => {
        const known = this.#routines.indexOf(name)
        return known >= 0 ? known : this.#routines.push(name) - 1
      },
      exitOf: () => 0,
      imports: {
        slowRead: slow(slowRead),
        slowWrite: slow(slowWrite),
        slowModify: slow(slowModify),
        slowReadOfCompiled: slow(slowRead),
        slowWriteOfCompiled: slow(slowWrite),
        slowModifyOfCompiled: slow(slowModify),
        checkSegment: slow(checkSegment),
        system: {
          params: ['i32', 'i32', 'i32'], results: ['i32'],
          function: (_cpu: number, _record: number, id: number) => {
            this.missing.add(this.#routines[id & 0xffff]!)
            core.set32(S.exit, EXIT.stop)
            return LEFT
          },
        },
        ...floatImports(memory.memory),
      },
    })
    const arena = 8 << 20
    this.#blocks = new BlockCache(core, this.#handlers, { start: take(arena), size: arena }, take(BLOCK_TABLE_SIZE))
    core.code = this.#blocks
    resetProcessor(core)

    this.#code = take(4096 * CODE_PAGES)
    this.#data = take(DATA_SIZE)
    const tables = Array.from({ length: 6 }, () => take(4096))
    const [pml4, pdpt, dataDirectory, codeDirectory, dataTable, codeTable] = tables as [number, number, number, number, number, number]
    const entry = (table: number, index: number, physical: number, bits = PRESENT_WRITE_USER) =>
      core.view.setBigUint64(table + 8 * index, BigInt(physical | bits), true)
    entry(pml4, 0, pdpt)
    entry(pdpt, DATA >>> 30, dataDirectory)
    entry(pdpt, CODE >>> 30, codeDirectory)
    entry(dataDirectory, (DATA >>> 21) & 511, dataTable)
    entry(codeDirectory, (CODE >>> 21) & 511, codeTable)
    for (let page = 0; page < DATA_SIZE >>> 12; page++) entry(dataTable, page, this.#data + page * 4096)
    for (let page = 0; page < CODE_PAGES; page++) entry(codeTable, page, this.#code + page * 4096, PRESENT_USER)

    core.set64(S.cr3, BigInt(pml4))
    core.set64(S.cr0, 0x8000_0033n) // PG, NE, ET, MP, PE
    core.set64(S.cr4, 0x620n) // OSXMMEXCPT, OSFXSR, PAE
    core.set64(S.efer, 0xd00n) // NXE, LMA, LME
    const user = RIGHTS.user | RIGHTS.present | 0x60 | RIGHTS.accessed | RIGHTS.readWrite | RIGHTS.granular
    for (const n of [SEGMENT.es, SEGMENT.ss, SEGMENT.ds, SEGMENT.fs, SEGMENT.gs]) setSegment(core, n, 0x2b, 0, 0, -1, user | RIGHTS.big)
    setSegment(core, SEGMENT.cs, codeSize === 64 ? 0x33 : 0x23, 0, 0, -1, user | RIGHTS.code | (codeSize === 64 ? RIGHTS.long : RIGHTS.big))
    if (codeSize === 32) for (const n of [SEGMENT.fs, SEGMENT.gs]) setSegment(core, n, 0, 0, 0, 0, RIGHTS.unusable)
    core.set32(S.cpl, 3)
    updatePaging(core)
    updateMode(core)
  }

  /** Runs all states of instruction `n`, standing at linear `address`, and writes final states into `out`, laid out as the batch's. */
  run(batch: Batch, n: number, address: number, out: Batch): void {
    const core = this.#core
    const code = batch.codeOf(n)
    const flags = batch.flagsOf(n)
    const host = this.#code + (address - CODE)
    core.u8.set(code, host)
    core.set64(S.rip, BigInt(address))
    core.set64(S.ripPage, BigInt((address & ~0xfff) >>> 0))
    const block = this.#blocks.decode(host, core.get32(S.mode), () => -1, 1)
    if (!block) throw new Error('an instruction on one page cannot fail to be fetched')
    this.#blocks.release(block)
    for (let m = 0; m < batch.each; m++) {
      const from = batch.inputOf(n, m)
      const to = out.outputOf(n, m)
      this.#load(batch, from, flags)
      core.set32(S.budget, 1 << 20)
      core.set32(S.exit, EXIT.lookup)
      core.set64(S.rip, 0n)
      this.#handlers.enter(core.base, block.first)
      this.#store(out, to, flags, address)
    }
  }

  #load(batch: Batch, state: number, flags: number): void {
    const core = this.#core
    const { i32, base } = core
    const { u32, u16, bytes } = batch
    const word = state >>> 2
    const gpr = (base + S.gpr) >>> 2
    for (let n = 0; n < 32; n++) i32[gpr + n] = u32[word + n]!
    const rflags = u32[(state + STATE.rflags) >>> 2]!
    loadFlags(core, rflags)
    if (flags & USES.memory) {
      core.u8.fill(0, this.#data, this.#data + DATA_SIZE)
      core.u8.set(bytes.subarray(state + STATE.memory, state + STATE.memory + MIDDLE_SIZE), this.#data + MIDDLE - DATA)
      core.u8.set(bytes.subarray(state + STATE.memory + MIDDLE_SIZE, state + STATE.memory + MIDDLE_SIZE + TAIL_SIZE), this.#data + TAIL - DATA)
    }
    if (!(flags & USES.vectors)) return
    const fx = state + STATE.fx
    const registers = (base + xmm(0)) >>> 2
    for (let n = 0; n < 64; n++) i32[registers + n] = u32[((fx + FX.xmm) >>> 2) + n]!
    core.set32(S.mxcsr, u32[(fx + FX.mxcsr) >>> 2]!)
    const status = u16[(fx + FX.status) >>> 1]!
    core.set32(S.fpuControl, u16[(fx + FX.control) >>> 1]!)
    core.set32(S.fpuStatus, status)
    core.set32(S.fpuTag, u16[(fx + FX.tag) >>> 1]!)
    core.set32(S.fpuOpcode, 0)
    core.set32(S.fpuSelectors, 0)
    core.set64(S.fpuIp, 0n)
    core.set64(S.fpuDp, 0n)
    const top = (status >> 11) & 7
    for (let n = 0; n < 8; n++) {
      const at = (base + fpr((top + n) & 7)) >>> 2
      const source = (fx + FX.st + 16 * n) >>> 2
      for (let part = 0; part < 4; part++) i32[at + part] = u32[source + part]!
    }
  }

  #store(out: Batch, state: number, flags: number, address: number): void {
    const core = this.#core
    const { i32, base } = core
    const { u32, u16, bytes } = out
    const word = state >>> 2
    const gpr = (base + S.gpr) >>> 2
    for (let n = 0; n < 32; n++) u32[word + n] = i32[gpr + n]!
    u32[(state + STATE.rflags) >>> 2] = storedFlags(core)
    u32[((state + STATE.rflags) >>> 2) + 1] = 0
    const exit = core.get32(S.exit)
    const at = (state + STATE.vector) >>> 2
    u32[at] = NO_EXCEPTION
    u32[at + 1] = u32[at + 2] = u32[at + 3] = 0
    u32[at + 4] = core.get32(S.rip)
    u32[at + 5] = core.get32(S.rip + 4)
    if (exit === EXIT.exception) {
      u32[at] = core.get32(S.vector)
      u32[at + 1] = core.get32(S.errorCode)
      if (u32[at] === PF) {
        u32[at + 2] = core.paging.faultLow
        u32[at + 3] = core.paging.faultHigh
      }
      const record = core.get32(S.record) >>> 0
      u32[at + 4] = (address & ~0xfff) + core.view.getUint16(record + RECORD.ip, true)
      u32[at + 5] = 0
    } else if (exit !== EXIT.lookup) u32[at] = 0xffff_0000 | exit
    if (flags & USES.memory) {
      const middle = this.#data + MIDDLE - DATA, tail = this.#data + TAIL - DATA
      bytes.set(core.u8.subarray(middle, middle + MIDDLE_SIZE), state + STATE.memory)
      bytes.set(core.u8.subarray(tail, tail + TAIL_SIZE), state + STATE.memory + MIDDLE_SIZE)
    }
    if (!(flags & USES.vectors)) return
    const fx = state + STATE.fx
    const registers = (base + xmm(0)) >>> 2
    for (let n = 0; n < 64; n++) u32[((fx + FX.xmm) >>> 2) + n] = i32[registers + n]!
    u32[(fx + FX.mxcsr) >>> 2] = core.get32(S.mxcsr)
    const status = core.get32(S.fpuStatus)
    u16[(fx + FX.control) >>> 1] = core.get32(S.fpuControl)
    u16[(fx + FX.status) >>> 1] = status
    u16[(fx + FX.tag) >>> 1] = core.get32(S.fpuTag)
    u16[(fx + FX.opcode) >>> 1] = core.get32(S.fpuOpcode)
    u32[(fx + FX.ip) >>> 2] = core.get32(S.fpuIp)
    u32[((fx + FX.ip) >>> 2) + 1] = core.get32(S.fpuIp + 4)
    u32[(fx + FX.dp) >>> 2] = core.get32(S.fpuDp)
    u32[((fx + FX.dp) >>> 2) + 1] = core.get32(S.fpuDp + 4)
    const top = (status >> 11) & 7
    for (let n = 0; n < 8; n++) {
      const from = (base + fpr((top + n) & 7)) >>> 2
      const target = (fx + FX.st + 16 * n) >>> 2
      for (let part = 0; part < 2; part++) u32[target + part] = i32[from + part]!
      u32[target + 2] = i32[from + 2]! & 0xffff
      u32[target + 3] = 0
    }
  }
}

const DF = 0x400

/** Without BigInt: the slots' two halves. */
function loadFlags(core: Core, rflags: number): void {
  const wide = (slot: number, low: number, high: number) => {
    core.set32(slot, low)
    core.set32(slot + 4, high)
  }
  core.set32(S.cf, rflags & 1)
  core.set32(S.af, rflags & 0x10)
  wide(S.of, 0, (rflags & 0x800) << 20)
  wide(S.zr, rflags & 0x40 ? 0 : 1, 0)
  wide(S.sp, rflags & 4 ? 0 : 1, (rflags & 0x80) << 24)
  core.set32(S.flags, 0x202 | (rflags & DF))
}

function storedFlags(core: Core): number {
  let flags = core.get32(S.flags) & (0x202 | DF | 0x40000 | 0x200000)
  flags |= core.get32(S.cf) & 1
  flags |= core.get32(S.af) & 0x10
  if (core.get32(S.of + 4) < 0) flags |= 0x800
  if (core.get32(S.zr) === 0 && core.get32(S.zr + 4) === 0) flags |= 0x40
  if (core.get32(S.sp + 4) < 0) flags |= 0x80
  let parity = core.get32(S.sp) & 0xff
  parity ^= parity >> 4
  parity ^= parity >> 2
  parity ^= parity >> 1
  return parity & 1 ? flags : flags | 4
}
