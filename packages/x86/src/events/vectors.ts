/** Exception vectors by class. Facts only. (SDM Vol. 3A, "Exception and Interrupt Reference") */
import { EVENT, type EventKind } from '../state/hooks.ts'

const bit = (...vectors: number[]): number => vectors.reduce((all, v) => all | (1 << v), 0)
/** Exceptions that push an error code. */
const WITH_ERROR_CODE = bit(8, 10, 11, 12, 13, 14, 17, 21)
/** Exceptions that combine to a double fault. (SDM Vol. 3A, "Conditions for Generating a Double Fault") */
const CONTRIBUTORY = bit(0, 10, 11, 12, 13)
/** Fault-class exceptions: the saved image has RF set. */
const FAULTS = bit(0, 5, 6, 7, 10, 11, 12, 13, 14, 16, 17, 19)

const within = (set: number, vector: number): boolean => vector < 32 && ((set >>> vector) & 1) !== 0
export const hasErrorCode = (vector: number): boolean => within(WITH_ERROR_CODE, vector)
export const isFault = (vector: number): boolean => within(FAULTS, vector)
export const isContributory = (vector: number): boolean => within(CONTRIBUTORY, vector)

/** INT n, INT3, INTO: privilege of the gate is checked and the EXT bit stays clear. */
export const isSoftware = (kind: EventKind): boolean => kind === EVENT.software || kind === EVENT.softwareException
