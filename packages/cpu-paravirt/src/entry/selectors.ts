/** CS, SS and data segments by selector, as a return to the guest loads them: what IRET would check at CPL 3. (SDM Vol. 2A, "IRET") */

import { findDescriptor, GuestFault, RIGHTS, SEGMENT, setSegment, VECTOR } from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import { FLAT } from '../facts.ts'

const CODE_64 = 0xa0fb
const DATA = 0xc0f3
const CPL = 3

interface Loaded {
  readonly base: number
  readonly limit: number
  readonly rights: number
}

export class Selectors {
  readonly #core: Core
  /** Of CS and SS, by selector. Descriptors change by call alone, and then these go. */
  readonly #code = new Map<number, Loaded>()
  readonly #stack = new Map<number, Loaded>()

  constructor(core: Core) {
    this.#core = core
  }

  forget(): void {
    this.#code.clear()
    this.#stack.clear()
  }

  /** Where a handler starts: flat, 64-bit. */
  loadFlat(): void {
    setSegment(this.#core, SEGMENT.cs, FLAT.code, 0, 0, -1, CODE_64)
    setSegment(this.#core, SEGMENT.ss, FLAT.stack, 0, 0, -1, DATA)
  }

  /** Throws a GuestFault with the selector as error code; nothing is loaded then. */
  load(code: number, stack: number): void {
    const cs = this.#find(this.#code, code, true)
    const ss = this.#find(this.#stack, stack, false)
    setSegment(this.#core, SEGMENT.cs, code, cs.base, 0, cs.limit, cs.rights)
    setSegment(this.#core, SEGMENT.ss, stack, ss.base, 0, ss.limit, ss.rights)
  }

  #find(known: Map<number, Loaded>, selector: number, isCode: boolean): Loaded {
    let found = known.get(selector)
    if (found === undefined) known.set(selector, (found = this.#judge(selector, isCode)))
    return found
  }

  #judge(selector: number, isCode: boolean): Loaded {
    const code = selector & 0xfffc
    const descriptor = code === 0 ? undefined : findDescriptor(this.#core, selector)
    const fits =
      descriptor !== undefined &&
      descriptor.privilege === CPL &&
      (isCode ? descriptor.isCode : descriptor.isWritableData) &&
      (descriptor.rights & (RIGHTS.long | RIGHTS.big)) !== (isCode ? RIGHTS.long | RIGHTS.big : -1)
    if (!fits) throw new GuestFault(VECTOR.GP, code)
    if (!descriptor.present) throw new GuestFault(isCode ? VECTOR.NP : VECTOR.SS, code)
    return { base: descriptor.base, limit: descriptor.limit, rights: descriptor.rights | RIGHTS.accessed }
  }
}
