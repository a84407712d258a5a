/** Resource descriptors, the content of _CRS. (ACPI, "Resource Data Types for ACPI") */
import { type Aml, buffer } from './aml.ts'

const bytes = (value: number, count: number): number[] =>
  Array.from({ length: count }, (_, index) => Math.floor(value / 256 ** index) % 256)

const END_TAG = [0x79, 0]

/** Descriptors as the buffer that _CRS holds. */
export const resourceTemplate = (...descriptors: Aml[]): Aml => buffer([...descriptors.flat(), ...END_TAG])

/** Ports at a fixed place, all 16 address bits decoded. */
export const ioPorts = (base: number, length: number): Aml => [0x47, 1, ...bytes(base, 2), ...bytes(base, 2), 1, length]

/** An ISA interrupt: edge, active high, exclusive. */
export const isaInterrupt = (irq: number): Aml => [0x22, ...bytes(1 << irq, 2)]

const LEVEL_HIGH_SHARED = 0x09 // as a consumer
/** A global system interrupt, or several to choose from: level, active high, shared. */
export const levelInterrupt = (...gsis: number[]): Aml => [
  ...[0x89, ...bytes(2 + 4 * gsis.length, 2), LEVEL_HIGH_SHARED, gsis.length],
  ...gsis.flatMap((gsi) => bytes(gsi, 4)),
]
/** Where its first number is in the descriptor. */
export const LEVEL_INTERRUPT_NUMBER = 5

/** Memory at a fixed place below 4 GiB. */
export const fixedMemory = (base: number, length: number): Aml => [
  0x86,
  9,
  0,
  1,
  ...bytes(base, 4),
  ...bytes(length, 4),
]

const KINDS = { memory: 0, io: 1, bus: 2 }
const FIXED_ENDS = 0x0c // both minimum and maximum are fixed; positive decode, producer

/** A window that a bridge hands to what is below it, in words of two, four or eight bytes. */
function window(
  tag: number,
  size: number,
  kind: keyof typeof KINDS,
  specific: number,
  base: number,
  length: number,
): Aml {
  const fields = [0, base, base + length - 1, 0, length].flatMap((value) => bytes(value, size))
  return [tag, ...bytes(3 + fields.length, 2), KINDS[kind], FIXED_ENDS, specific, ...fields]
}

export const busWindow = (first: number, last: number): Aml => window(0x88, 2, 'bus', 0, first, last - first + 1)

const ENTIRE_RANGE = 3 // ISA and non-ISA ports alike
export const ioWindow = (base: number, length: number): Aml => window(0x88, 2, 'io', ENTIRE_RANGE, base, length)

const READ_WRITE = 1
export const memoryWindow = (base: number, length: number): Aml =>
  base + length <= 0x100000000
    ? window(0x87, 4, 'memory', READ_WRITE, base, length)
    : window(0x8a, 8, 'memory', READ_WRITE, base, length)
