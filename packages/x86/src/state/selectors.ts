/** Segment selectors, and the rights of the flat segments that SYSCALL and its kind load. */
import { RIGHTS } from './register-bits.ts'

/** What error codes and null checks have of a selector: all but its RPL. (SDM Vol. 3A, "Segment Selectors") */
export const NO_RPL = 0xfffc

const FLAT_CODE = RIGHTS.accessed | RIGHTS.readWrite | RIGHTS.code | RIGHTS.user | RIGHTS.present | RIGHTS.granular
const FLAT_DATA = RIGHTS.accessed | RIGHTS.readWrite | RIGHTS.user | RIGHTS.present | RIGHTS.granular
/** The DPL is to be added. */
export const FLAT = { code64: FLAT_CODE | RIGHTS.long, code32: FLAT_CODE | RIGHTS.big, data: FLAT_DATA | RIGHTS.big } as const
/** A DPL in a segment's rights. */
export const dpl = (level: number): number => level << 5
