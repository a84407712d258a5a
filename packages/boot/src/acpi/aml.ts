/** AML terms as bytes: names, packages, buffers, scopes, devices, methods. No evaluation, no machine. (ACPI, "ACPI Machine Language (AML) Specification") */

export type Aml = readonly number[]

const ascii = (text: string): number[] => [...text].map((character) => character.charCodeAt(0))

/** One segment of a name: four characters, padded with underscores. */
const segment = (name: string): number[] => ascii(name.padEnd(4, '_'))

/** "\\_SB.PCI0" and the like: root prefix, then one, two (DualName) or more (MultiName) segments. */
export function nameString(path: string): Aml {
  const root = path.startsWith('\\')
  const names = path
    .slice(root ? 1 : 0)
    .split('.')
    .filter((name) => name !== '')
  const segments = names.flatMap(segment)
  const prefix = names.length === 2 ? [0x2e] : names.length > 2 ? [0x2f, names.length] : []
  return [...(root ? [0x5c] : []), ...prefix, ...(names.length === 0 ? [0] : segments)]
}

/** A length that counts itself: one byte up to 63, else four bits and up to three further bytes. */
function withLength(content: Aml): Aml {
  for (let extra = 0; extra <= 3; extra++) {
    const total = content.length + 1 + extra
    if (extra === 0 ? total < 0x40 : total < 1 << (4 + 8 * extra)) {
      if (extra === 0) return [total, ...content]
      const bytes = Array.from({ length: extra }, (_, index) => (total >> (4 + 8 * index)) & 0xff)
      return [(extra << 6) | (total & 15), ...bytes, ...content]
    }
  }
  throw new RangeError('AML package of 256 MiB')
}

const littleEndian = (value: number, bytes: number): number[] =>
  Array.from({ length: bytes }, (_, index) => Math.floor(value / 256 ** index) % 256)

/** The shortest integer that holds the value. */
export function integer(value: number): Aml {
  if (value === 0) return [0x00]
  if (value === 1) return [0x01]
  if (value < 0x100) return [0x0a, value]
  if (value < 0x10000) return [0x0b, ...littleEndian(value, 2)]
  if (value < 0x100000000) return [0x0c, ...littleEndian(value, 4)]
  return [0x0e, ...littleEndian(value, 8)]
}

export const string = (text: string): Aml => [0x0d, ...ascii(text), 0]

export const buffer = (bytes: Aml): Aml => [0x11, ...withLength([...integer(bytes.length), ...bytes])]

export const packageOf = (...elements: Aml[]): Aml => [0x12, ...withLength([elements.length, ...elements.flat()])]

export const named = (name: string, value: Aml): Aml => [0x08, ...nameString(name), ...value]

export const scope = (name: string, ...terms: Aml[]): Aml => [
  0x10,
  ...withLength([...nameString(name), ...terms.flat()]),
]

export const device = (name: string, ...terms: Aml[]): Aml => [
  0x5b,
  0x82,
  ...withLength([...nameString(name), ...terms.flat()]),
]

/** Whatever makes names when it runs must be serialized. */
const SERIALIZED = 8
export const method = (name: string, argumentCount: number, ...terms: Aml[]): Aml => [
  0x14,
  ...withLength([...nameString(name), argumentCount | SERIALIZED, ...terms.flat()]),
]

/** A window onto a device's PCI configuration space, and its bytes by name: `undefined` leaves one out. */
export function configurationBytes(region: string, at: number, names: readonly (string | undefined)[]): Aml {
  const PCI_CONFIG = 2
  const BYTE_ACCESS = 1
  const byte = (name: string | undefined): number[] => [...(name === undefined ? [0] : segment(name)), 8]
  return [
    ...[0x5b, 0x80, ...nameString(region), PCI_CONFIG, ...integer(at), ...integer(names.length)],
    ...[0x5b, 0x81, ...withLength([...nameString(region), BYTE_ACCESS, ...names.flatMap(byte)])],
  ]
}

export const store = (value: Aml, to: Aml): Aml => [0x70, ...value, ...to]
const NOWHERE = 0
export const and = (left: Aml, right: Aml): Aml => [0x7b, ...left, ...right, NOWHERE]
export const or = (left: Aml, right: Aml): Aml => [0x7d, ...left, ...right, NOWHERE]
export const when = (condition: Aml, ...terms: Aml[]): Aml => [0xa0, ...withLength([...condition, ...terms.flat()])]
/** Names four bytes of a buffer, from `at` on. */
export const doubleWordField = (of: Aml, at: number, name: string): Aml => [
  0x8a,
  ...of,
  ...integer(at),
  ...nameString(name),
]

export const argument = (index: number): Aml => [0x68 + index]

export const returned = (value: Aml): Aml => [0xa4, ...value]

/** "PNP0A08" packed into 32 bits: three letters of five bits, four hexadecimal digits, big-endian. (ACPI, "EISAID") */
export function eisaId(id: string): Aml {
  const letter = (index: number) => id.charCodeAt(index) - 0x40
  const letters = (letter(0) << 10) | (letter(1) << 5) | letter(2)
  const digits = parseInt(id.slice(3), 16)
  return [0x0c, letters >> 8, letters & 0xff, digits >> 8, digits & 0xff]
}
