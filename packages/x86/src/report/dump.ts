/** How guest code is compiled, as text: its disassembly, the IR of its region and of its handlers, the region's WebAssembly. */
import { decode } from '../decode/decoder.ts'
import { disassemble, registerName } from '../decode/disassemble.ts'
import { createInstruction, type CodeSize, type Instruction } from '../decode/instruction.ts'
import { floatImports } from '../float/imports.ts'
import { handlerIr } from '../interpreter/handlers.ts'
import { print } from '../ir/print.ts'
import { exportedModule } from '../backend/function-module.ts'
import { CODE_TYPE } from '../ir/function.ts'
import { rows } from '../rows/index.ts'
import { gpr, S, SEG, SEGMENT, segment } from '../state/layout.ts'
import { MODE } from '../state/mode.ts'
import { decodeModeOf } from '../decode/decode-mode.ts'
import { systemRoutineNumber } from '../system/index.ts'
import { exitOf } from '../rows/exits.ts'
import { buildRegion } from '../compiler/build-region.ts'
import { REFILL_TYPE } from '../code/refill.ts'
import { SLOW_ACCESSES } from '../code/slow-access.ts'
import type { RegionBuilder } from '../compiler/region-builder.ts'

/** Code of an operating system's kernel. */
export const DUMP_MODES: Readonly<Record<CodeSize, number>> = {
  16: 0,
  32: 1 | MODE.stack32 | MODE.protectedMode,
  64: 2 | MODE.protectedMode | MODE.longMode,
}

export interface CodeDump {
  /** The region's instructions by offset in the code, or the straight-line code if there is no region. */
  readonly guest: readonly { readonly address: number; readonly bytes: Uint8Array; readonly text: string }[]
  /** Undefined: the interpreter runs this code. */
  readonly region: { readonly ir: string; readonly wasm: Uint8Array<ArrayBuffer>; readonly blocks: number } | undefined
  /** What the interpreter runs for each instruction that has semantics. */
  readonly handlers: readonly { readonly text: string; readonly ir: string }[]
}

const PAGE = 4096

/** The code at offset `at`, in a region with the code that it reaches on its page. `code` begins at a page boundary, and at `base` when it runs. */
export function dumpCode(code: Uint8Array, at: number, mode: number, base = 0n): CodeDump {
  const page = at - (at % PAGE)
  const bytes = code.subarray(page, page + PAGE)
  const built = buildRegion(
    {
      bytes,
      page: 0,
      end: bytes.length,
      mode,
      refused: new Set(),
      isEntry: () => false,
      targets: [],
      trapped: [],
    },
    at - page,
  )
  const placed = new Map<number, Instruction>()
  if (built) for (const block of built.region.blocks) for (const { ip, instruction } of block.instructions) placed.set(ip, instruction)
  else for (const { ip, instruction } of straight(bytes, at - page, decodeModeOf(mode))) placed.set(ip, instruction)
  const guest = [...placed]
    .toSorted(([a], [b]) => a - b)
    .map(([ip, instruction]) => ({
      address: page + ip,
      bytes: bytes.slice(ip, ip + instruction.length),
      text: disassemble(instruction, base + BigInt(page + ip)),
      instruction,
    }))
  const names = { params: ['cpu', 'record'], slotName }
  const context = { systemRoutine: systemRoutineNumber, exitOf: ({ row }: Instruction) => exitOf(row) }
  return {
    guest: guest.map(({ address, bytes, text }) => ({ address, bytes, text })),
    region: built && { ir: print(built.body.root, names), wasm: moduleOf(built.body), blocks: built.region.blocks.length },
    handlers: guest.map(({ instruction, text }) => ({ text, ir: print(handlerIr(instruction, mode, context), names) })),
  }
}

/** Consecutive instructions up to the first that transfers control. */
function* straight(bytes: Uint8Array, from: number, mode: { codeSize: CodeSize; protectedMode: boolean }) {
  for (let ip = from; ip < bytes.length; ) {
    const instruction = createInstruction(rows[0]!)
    if (decode(bytes, ip, bytes.length - ip, mode, instruction) !== 'ok') return
    yield { ip, instruction }
    if (instruction.row.attributes.flow !== undefined) return
    ip += instruction.length
  }
}

const SLOW = { params: ['i32', 'i32'], results: ['i32'] } as const

/** A module of the one function, as the processor would make it. */
function moduleOf(body: RegionBuilder): Uint8Array<ArrayBuffer> {
  const float = floatImports(new WebAssembly.Memory({ initial: 1, maximum: 65536, shared: true }))
  const signatures = Object.fromEntries([...body.callees].map((name) => [name, name === 'refill' ? REFILL_TYPE : name === 'dispatch' || name === 'settleFlags' ? CODE_TYPE : (SLOW_ACCESSES[name] ?? float[name] ?? SLOW)]))
  return exportedModule([body], { signatures })
}

/** Scalar slots and where arrays begin, highest first. */
const SLOTS = Object.entries(S).toSorted(([, a], [, b]) => b - a)
const SEGMENT_NAMES = Object.entries(SEGMENT)
const SEGMENT_FIELDS = Object.entries(SEG).filter(([name]) => name !== 'size')

/** `rax`, `ss.base`, `xmm3`, `args+8`: the slot at an offset, as layout.ts calls it. */
export function slotName(offset: number): string {
  const byte = (name: string, rest: number): string => (rest ? `${name}+${rest}` : name)
  if (offset < gpr(16)) return byte(registerName(offset >> 3, 64, true), offset & 7)
  const found = SEGMENT_NAMES.find(([, n]) => offset >= segment(n) && offset < segment(n + 1))
  if (found) {
    const rest = offset - segment(found[1])
    return `${found[0]}.${SEGMENT_FIELDS.find(([, at]) => at === rest)?.[0] ?? rest}`
  }
  for (const [name, size] of [['xmm', 16], ['fpr', 16]] as const) {
    const rest = offset - S[name]
    const count = name === 'xmm' ? 16 : 8
    if (rest >= 0 && rest < size * count) return byte(`${name}${Math.floor(rest / size)}`, rest % size)
  }
  const [name, at] = SLOTS.find(([, start]) => start <= offset)!
  return byte(name, offset - at)
}
