/** @hot Data and I/O breakpoints: which accesses match, and which pages must therefore stay out of the TLB. (SDM Vol. 3B, "Debug Registers") */
import type { Core } from '../../state/core.ts'
import { S } from '../../state/layout.ts'
import { CR4 } from '../../state/register-bits.ts'

/** R/W field of DR7: the kind of access that a breakpoint matches. */
export const BREAK_ON = { execute: 0, write: 1, io: 2, readWrite: 3 } as const

export const breakpointKind = (dr7: number, n: number): number => (dr7 >>> (16 + n * 4)) & 3
export const breakpointEnabled = (dr7: number, n: number): boolean => ((dr7 >>> (n * 2)) & 3) !== 0
/** Bytes: LEN 0, 1, 3, 2 mean 1, 2, 4, 8. */
export const breakpointLength = (dr7: number, n: number): number => [1, 2, 8, 4][(dr7 >>> (18 + n * 4)) & 3]!

/**
 * Records the data breakpoints that an access matches, for delivery after the instruction. True if the page (or the next, for an access that crosses)
 * has a watched byte: it must not enter the TLB.
 */
export function watchHits(core: Core, low: number, high: number, bytes: number, write: boolean): boolean {
  const dr7 = core.get32(S.dr7)
  let onPage = false
  for (let n = 0; n < 4; n++) {
    if (!((core.paging.watches >>> n) & 1)) continue
    const length = breakpointLength(dr7, n)
    const start = core.get32(S.dr0 + 8 * n) & -length
    if (core.get32(S.dr0 + 8 * n + 4) !== high) continue
    const distance = (low - start) | 0
    if (((low ^ start) & -4096) === 0) onPage = true
    const overlaps = distance < length && distance > -bytes
    if (overlaps && (write || breakpointKind(dr7, n) === BREAK_ON.readWrite)) core.pendingDebug |= 1 << n
  }
  return onPage
}

/** Records the I/O breakpoints that a port access matches (CR4.DE). */
export function watchPort(core: Core, port: number, bytes: number): void {
  if (!(core.get32(S.cr4) & CR4.de)) return
  const dr7 = core.get32(S.dr7)
  for (let n = 0; n < 4; n++) {
    if (!breakpointEnabled(dr7, n) || breakpointKind(dr7, n) !== BREAK_ON.io) continue
    const length = breakpointLength(dr7, n)
    const start = core.get32(S.dr0 + 8 * n) & -length
    if (port < start + length && port + bytes > start) core.pendingDebug |= 1 << n
  }
}
