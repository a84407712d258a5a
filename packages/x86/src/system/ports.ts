/** IN, OUT and their string forms: the I/O permission check, breakpoints, and the bus. (SDM Vol. 1, "Input/Output") */
import { sliceIsOver } from '../state/slice.ts'
import { GuestFault, LEFT, Left, NEXT, type Core, type Outcome, type SystemRoutine } from '../state/core.ts'
import { watchPort } from '../paging/access/watch.ts'
import { implicitAccess, readLinear } from '../paging/access/linear.ts'
import { slowModify, slowRead, slowWrite } from '../paging/access/slow-path.ts'
import { ioPrivilege } from '../state/flags.ts'
import { EXIT, gpr, RCX, RDI, RSI, S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { CR0, FLAG, VECTOR } from '../state/register-bits.ts'
import { checkSegment, in64BitCode } from '../state/segments.ts'
import { leaveAfter } from '../control/leave.ts'

const TR = segment(SEGMENT.tr)

/** #GP(0) unless IOPL or the TSS's bitmap allows the access. */
export function checkPort(core: Core, port: number, bytes: number): void {
  const flags = core.get32(S.flags)
  if (!(core.get32(S.cr0) & CR0.pe)) return
  if (!(flags & FLAG.VM) && core.get32(S.cpl) <= ioPrivilege(flags)) return
  const limit = core.get32(TR + SEG.limit) >>> 0
  const rights = core.get32(TR + SEG.attributes)
  const fault = new GuestFault(VECTOR.GP, 0)
  if ((rights & 0x1f) !== 0xb || limit < 0x67) throw fault
  const base = core.get32(TR + SEG.base)
  const high = core.get32(TR + SEG.base + 4)
  const access = implicitAccess(core)
  const offset = readLinear(core, (base + 0x66) | 0, high, 2, access) + (port >>> 3)
  // Two bytes are read, whatever the port: the bitmap ends with a byte of ones.
  if (offset + 1 > limit) throw fault
  const map = readLinear(core, (base + offset) | 0, high, 2, access)
  if (map & (((1 << bytes) - 1) << (port & 7))) throw fault
}

/** (port, bytes) → value slot. */
function input(core: Core): Outcome {
  const port = core.arg32(0) & 0xffff
  const bytes = core.arg32(1)
  if (core.debugging) watchPort(core, port, bytes)
  core.set32(S.value, core.host.readPort(port, bytes))
  core.set32(S.value + 4, 0)
  return NEXT
}

/** (port, bytes, value). */
function output(core: Core): Outcome {
  const port = core.arg32(0) & 0xffff
  const bytes = core.arg32(1)
  if (core.debugging) watchPort(core, port, bytes)
  const value = core.arg32(2)
  core.host.writePort(port, bytes, bytes === 4 ? value >>> 0 : value & ((1 << (8 * bytes)) - 1))
  // The device may have raised its line.
  return core.get32(S.attention) ? leaveAfter(core, EXIT.attention) : NEXT
}

/** Sets the `address` slot to the linear address of an offset. Throws if the segment does not allow it. */
function locate(core: Core, n: number, low: number, high: number, bytes: number, write: boolean): void {
  core.set32(S.address, low)
  core.set32(S.address + 4, high)
  const at = segment(n)
  if (in64BitCode(core)) {
    if (n === SEGMENT.fs || n === SEGMENT.gs) core.set64(S.address, core.get64(S.address) + core.get64(at + SEG.base))
    return
  }
  if (checkSegment(core, bytes | (n << 16) | (write ? 0x100_0000 : 0))) throw new Left()
  core.set32(S.address, (low + core.get32(at + SEG.base)) | 0)
  core.set32(S.address + 4, 0)
}

function advance(core: Core, register: number, by: number, size: number): void {
  const at = gpr(register)
  if (size === 16) core.view.setUint16(core.base + at, (core.get32(at) + by) & 0xffff, true)
  else if (size === 32) {
    core.set32(at, core.get32(at) + by)
    core.set32(at + 4, 0)
  } else core.set64(at, core.get64(at) + BigInt(by))
}
const offsetOf = (core: Core, register: number, size: number): number =>
  size === 16 ? core.get32(gpr(register)) & 0xffff : core.get32(gpr(register))
const upperOf = (core: Core, register: number, size: number): number =>
  size === 64 ? core.get32(gpr(register) + 4) : 0

function countIsZero(core: Core, size: number): boolean {
  if (size === 16) return !(core.get32(gpr(RCX)) & 0xffff)
  return core.get32(gpr(RCX)) === 0 && (size === 32 || core.get32(gpr(RCX) + 4) === 0)
}

/** (port, bytes, repeated, address size, segment). */
const stringIo =
  (write: boolean) =>
  (core: Core): Outcome => {
    const port = core.arg32(0) & 0xffff
    const bytes = core.arg32(1)
    const repeated = core.arg32(2) !== 0
    const size = core.arg32(3)
    const step = core.get32(S.flags) & FLAG.DF ? -bytes : bytes
    for (;;) {
      if (repeated && countIsZero(core, size)) return NEXT
      if (!(write ? outputElement(core, port, bytes, size, core.arg32(4)) : inputElement(core, port, bytes, size)))
        return LEFT
      advance(core, write ? RSI : RDI, step, size)
      if (!repeated) return NEXT
      advance(core, RCX, -1, size)
      // Elements count against the budget as those of other strings (semantics/string.ts). A single step has a budget of one instruction.
      core.set32(S.budget, core.get32(S.budget) - 1)
      if (countIsZero(core, size)) return NEXT
      if (sliceIsOver(core)) {
        core.set32(S.exit, EXIT.budget)
        return LEFT
      }
    }
  }

/** Write permission is checked before the port is read. */
function inputElement(core: Core, port: number, bytes: number, size: number): boolean {
  locate(core, SEGMENT.es, offsetOf(core, RDI, size), upperOf(core, RDI, size), bytes, true)
  if (slowModify(core, bytes)) return false
  if (core.debugging) watchPort(core, port, bytes)
  core.set32(S.value, core.host.readPort(port, bytes))
  return !slowWrite(core, bytes)
}
function outputElement(core: Core, port: number, bytes: number, size: number, n: number): boolean {
  locate(core, n, offsetOf(core, RSI, size), upperOf(core, RSI, size), bytes, false)
  if (slowRead(core, bytes | (n << 8))) return false
  if (core.debugging) watchPort(core, port, bytes)
  const value = core.get32(S.value)
  core.host.writePort(port, bytes, bytes === 4 ? value >>> 0 : value & ((1 << (8 * bytes)) - 1))
  return true
}

export const ports: Record<string, SystemRoutine> = { input, output, ins: stringIo(false), outs: stringIo(true) }
