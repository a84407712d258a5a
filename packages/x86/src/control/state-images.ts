/** FXSAVE, XSAVE and related instructions: x87 and SSE state as memory images. (SDM Vol. 1, "Managing State Using the XSAVE Feature Set") */
import { GuestFault, NEXT, type Core, type Outcome, type SystemRoutine } from '../state/core.ts'
import { operandAccess, readRange, writeRange } from '../paging/access/linear.ts'
import { gpr, fpr, RAX, S, xmm } from '../state/layout.ts'
import { in64BitCode } from '../state/segments.ts'
import { CR0, CR4 } from '../state/register-bits.ts'
import { VECTOR } from '../state/register-bits.ts'

const LEGACY = 512
const HEADER = 64
const X87 = 1
const SSE = 2
const MXCSR_VALID = 0xffff
export const MXCSR_INITIAL = 0x1f80
/** x87 control word: implemented bits, and the reserved one that reads as 1; status word: ES and B. (SDM Vol. 1, "x87 FPU Control Word") */
const CONTROL_BITS = 0x1f3f
const CONTROL_FIXED = 0x40
const STATUS_PENDING = 0x8080
const EXCEPTIONS = 0x3f
/** Offsets in the legacy region. */
const AT = {
  control: 0,
  status: 2,
  tag: 4,
  opcode: 6,
  ip: 8,
  dp: 16,
  mxcsr: 24,
  mxcsrMask: 28,
  st: 32,
  xmm: 160,
} as const

/** Buffer for one image, with header. */
const image = new Uint8Array(LEGACY + HEADER)
const view = new DataView(image.buffer)

const fail = (): never => {
  throw new GuestFault(VECTOR.GP, 0)
}

/** Registers to image. `wide`: 64-bit instruction and data pointers; otherwise selectors, which are not kept (FCS and FDS are deprecated). */
function packX87(core: Core, wide: boolean): void {
  image.fill(0, 0, AT.mxcsr)
  const status = core.get32(S.fpuStatus)
  view.setUint16(AT.control, core.get32(S.fpuControl), true)
  view.setUint16(AT.status, status, true)
  image[AT.tag] = core.get32(S.fpuTag)
  view.setUint16(AT.opcode, core.get32(S.fpuOpcode) & 0x7ff, true)
  view.setInt32(AT.ip, core.get32(S.fpuIp), true)
  view.setInt32(AT.dp, core.get32(S.fpuDp), true)
  if (wide) {
    view.setInt32(AT.ip + 4, core.get32(S.fpuIp + 4), true)
    view.setInt32(AT.dp + 4, core.get32(S.fpuDp + 4), true)
  }
  const top = (status >>> 11) & 7
  for (let i = 0; i < 8; i++) {
    const from = core.base + fpr((top + i) & 7)
    const to = AT.st + 16 * i
    for (let byte = 0; byte < 10; byte++) image[to + byte] = core.u8[from + byte]!
    image.fill(0, to + 10, to + 16)
  }
}
/** Reserved bits of the control word and what the status word has of pending exceptions (ES, B) are not taken from an image, as in FLDENV. */
function unpackX87(core: Core, wide: boolean): void {
  const control = (view.getUint16(AT.control, true) & CONTROL_BITS) | CONTROL_FIXED
  const flags = view.getUint16(AT.status, true) & ~STATUS_PENDING
  const status = flags & ~control & EXCEPTIONS ? flags | STATUS_PENDING : flags
  core.set32(S.fpuControl, control)
  core.set32(S.fpuStatus, status)
  core.set32(S.fpuTag, image[AT.tag]!)
  core.set32(S.fpuOpcode, view.getUint16(AT.opcode, true) & 0x7ff)
  core.set32(S.fpuIp, view.getInt32(AT.ip, true))
  core.set32(S.fpuIp + 4, wide ? view.getInt32(AT.ip + 4, true) : 0)
  core.set32(S.fpuDp, view.getInt32(AT.dp, true))
  core.set32(S.fpuDp + 4, wide ? view.getInt32(AT.dp + 4, true) : 0)
  const top = (status >>> 11) & 7
  for (let i = 0; i < 8; i++) {
    const to = core.base + fpr((top + i) & 7)
    const from = AT.st + 16 * i
    for (let byte = 0; byte < 10; byte++) core.u8[to + byte] = image[from + byte]!
  }
}
function initialX87(core: Core): void {
  core.set32(S.fpuControl, 0x37f)
  for (const slot of [S.fpuStatus, S.fpuTag, S.fpuOpcode, S.fpuIp, S.fpuIp + 4, S.fpuDp, S.fpuDp + 4])
    core.set32(slot, 0)
  core.u8.fill(0, core.base + S.fpr, core.base + S.fpr + 128)
}

/** Only eight registers exist outside 64-bit mode. */
const xmmBytes = (core: Core): number => (in64BitCode(core) ? 256 : 128)
function packXmm(core: Core, bytes = xmmBytes(core)): void {
  const from = core.base + xmm(0)
  image.set(core.u8.subarray(from, from + bytes), AT.xmm)
}
function unpackXmm(core: Core, bytes = xmmBytes(core)): void {
  core.u8.set(image.subarray(AT.xmm, AT.xmm + bytes), core.base + xmm(0))
}
function packMxcsr(core: Core): void {
  view.setInt32(AT.mxcsr, core.get32(S.mxcsr), true)
  view.setInt32(AT.mxcsrMask, MXCSR_VALID, true)
}

/** Components that are not in their initial state. */
function inUse(core: Core): number {
  let used = 0
  if (core.get32(S.fpuControl) !== 0x37f || core.get32(S.fpuStatus) || core.get32(S.fpuTag) || core.get32(S.fpuOpcode))
    used |= X87
  const word = (offset: number) => core.i32[(core.base + offset) >>> 2]!
  for (let n = 0; n < 8 && !(used & X87); n++)
    if (word(fpr(n)) | word(fpr(n) + 4) | (word(fpr(n) + 8) & 0xffff)) used |= X87
  if (word(S.fpuIp) | word(S.fpuIp + 4) | word(S.fpuDp) | word(S.fpuDp + 4)) used |= X87
  for (let at = 0; at < 256 && !(used & SSE); at += 4) if (word(xmm(0) + at)) used |= SSE
  return used
}

/** (linear address, operand size). */
function fxsave(core: Core): Outcome {
  available(core, false)
  const address = aligned(core, 16)
  packX87(core, core.arg32(1) === 64)
  packMxcsr(core)
  packXmm(core)
  const used = AT.xmm + xmmBytes(core)
  writeRange(core, address.low, address.high, image, 0, used, operandAccess(core))
  return NEXT
}
function fxrstor(core: Core): Outcome {
  available(core, false)
  const address = aligned(core, 16)
  readRange(core, address.low, address.high, image, LEGACY, operandAccess(core))
  const mxcsr = view.getInt32(AT.mxcsr, true)
  if (mxcsr & ~MXCSR_VALID) fail()
  unpackX87(core, core.arg32(1) === 64)
  core.set32(S.mxcsr, mxcsr)
  unpackXmm(core)
  return NEXT
}

/** CR0.EM, CR0.TS, CR4.OSXSAVE. */
function available(core: Core, xsave: boolean): void {
  if (xsave ? !(core.get32(S.cr4) & CR4.osxsave) : core.get32(S.cr0) & CR0.em) throw new GuestFault(VECTOR.UD)
  if (core.get32(S.cr0) & CR0.ts) throw new GuestFault(VECTOR.NM)
}
function aligned(core: Core, to: number): { low: number; high: number } {
  const low = core.get32(S.args)
  if (low & (to - 1)) fail()
  return { low, high: core.get32(S.args + 4) }
}
/** The requested-feature bitmap: EDX:EAX and XCR0. */
const requested = (core: Core): number => core.get32(gpr(RAX)) & core.get32(S.xcr0) & 3

/** (linear address, operand size). `compact`: XSAVEC and XSAVES. `optimise`: leave out what is in its initial state. */
const save =
  (compact: boolean, optimise: boolean) =>
  (core: Core): Outcome => {
    available(core, true)
    const { low, high } = aligned(core, 64)
    const access = operandAccess(core)
    const wanted = requested(core)
    const used = inUse(core) | (compact && core.get32(S.mxcsr) !== MXCSR_INITIAL ? SSE : 0)
    const header = { low: (low + LEGACY) | 0, high }
    if (!compact) readRange(core, header.low, header.high, image, HEADER, access, LEGACY)
    else image.fill(0, LEGACY)
    const parts = optimise ? wanted & used : wanted
    const present = ((compact ? 0 : view.getInt32(LEGACY, true)) & ~wanted) | (wanted & used)
    view.setInt32(LEGACY, present, true)
    if (compact) {
      view.setInt32(LEGACY + 8, wanted, true)
      view.setInt32(LEGACY + 12, 0x8000_0000 | 0, true)
    }
    // The header first: it is at the far end, so a fault occurs before anything has been written.
    writeRange(core, header.low, header.high, image, LEGACY, LEGACY + (compact ? HEADER : 8), access)
    if (parts & X87) {
      packX87(core, core.arg32(1) === 64)
      writeRange(core, low, high, image, 0, AT.mxcsr, access)
      writeRange(core, (low + AT.st) | 0, high, image, AT.st, AT.xmm, access)
    }
    // MXCSR is stored as requested in the standard form, and with the component in the compact form.
    if ((compact ? parts : wanted) & SSE) {
      packMxcsr(core)
      writeRange(core, (low + AT.mxcsr) | 0, high, image, AT.mxcsr, AT.st, access)
    }
    if (parts & SSE) {
      packXmm(core)
      writeRange(core, (low + AT.xmm) | 0, high, image, AT.xmm, AT.xmm + xmmBytes(core), access)
    }
    return NEXT
  }

/** (linear address, operand size). */
const restore =
  (supervisor: boolean) =>
  (core: Core): Outcome => {
    available(core, true)
    const { low, high } = aligned(core, 64)
    readRange(core, low, high, image, LEGACY + HEADER, operandAccess(core))
    const wanted = requested(core)
    const present = view.getInt32(LEGACY, true)
    const compact = view.getInt32(LEGACY + 12, true) < 0
    if (supervisor && !compact) fail()
    checkHeader(core, compact)
    if (compact ? wanted & present & SSE : wanted & SSE) {
      const mxcsr = view.getInt32(AT.mxcsr, true)
      if (mxcsr & ~MXCSR_VALID) fail()
      core.set32(S.mxcsr, mxcsr)
    } else if (wanted & SSE) core.set32(S.mxcsr, MXCSR_INITIAL)
    if (wanted & X87) {
      if (present & X87) unpackX87(core, core.arg32(1) === 64)
      else initialX87(core)
    }
    if (wanted & SSE) {
      if (present & SSE) unpackXmm(core)
      else core.u8.fill(0, core.base + xmm(0), core.base + xmm(0) + xmmBytes(core))
    }
    return NEXT
  }

/** (SDM Vol. 1, "Standard Form of XRSTOR", "Compacted Form of XRSTOR") */
function checkHeader(core: Core, compact: boolean): void {
  const xcr0 = core.get32(S.xcr0)
  const word = (n: number) => view.getInt32(LEGACY + 4 * n, true)
  const components = compact ? word(2) : xcr0
  if (word(0) & ~components || word(1)) fail()
  if (compact ? word(2) & ~xcr0 || word(3) & 0x7fff_ffff : word(2) | word(3) | word(4) | word(5)) fail()
  if (compact) for (let n = 4; n < 16; n++) if (word(n)) fail()
}

export const stateImages: Record<string, SystemRoutine> = {
  fxsave,
  fxrstor,
  xsave: save(false, false),
  xsaveopt: save(false, true),
  xsavec: save(true, true),
  xsaves: save(true, true),
  xrstor: restore(false),
  xrstors: restore(true),
}

/** All of x87 and SSE in the standard form of XSAVE, whatever the mode: for snapshots and debuggers. */
export function readXsaveArea(core: Core): Uint8Array {
  image.fill(0)
  packX87(core, true)
  packMxcsr(core)
  packXmm(core, 256)
  view.setInt32(LEGACY, X87 | SSE, true)
  return image.slice()
}

/** The counterpart. Components that the header says are initial become so; 512 bytes without a header hold both. */
export function writeXsaveArea(core: Core, area: Uint8Array): void {
  image.fill(0)
  image.set(area.subarray(0, LEGACY + HEADER))
  const present = area.length > LEGACY ? view.getInt32(LEGACY, true) : X87 | SSE
  if (present & X87) unpackX87(core, true)
  else initialX87(core)
  core.set32(S.mxcsr, present & SSE ? view.getInt32(AT.mxcsr, true) & MXCSR_VALID : MXCSR_INITIAL)
  if (present & SSE) unpackXmm(core, 256)
  else core.u8.fill(0, core.base + xmm(0), core.base + xmm(16))
}
