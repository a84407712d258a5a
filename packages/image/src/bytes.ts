/** Byte helpers that every archive format needs: text, joining, bounded little-endian reads. Independent of formats. */

export type Bytes = Uint8Array<ArrayBufferLike>

const utf8 = new TextDecoder()
const utf8Encoder = new TextEncoder()

export const decodeText = (bytes: Bytes): string => utf8.decode(bytes)
export const encodeText = (text: string): Uint8Array<ArrayBuffer> => utf8Encoder.encode(text)

/** Text up to the first NUL, or all of it. */
export function decodeCString(bytes: Bytes): string {
  const end = bytes.indexOf(0)
  return decodeText(end < 0 ? bytes : bytes.subarray(0, end))
}

export function concatBytes(parts: readonly Bytes[]): Uint8Array<ArrayBuffer> {
  const joined = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    joined.set(part, at)
    at += part.length
  }
  return joined
}

export const startsWith = (bytes: Bytes, magic: ArrayLike<number>, at = 0): boolean => {
  if (bytes.length < at + magic.length) return false
  for (let i = 0; i < magic.length; i++) if (bytes[at + i] !== magic[i]) return false
  return true
}

export const dataView = (bytes: Bytes): DataView => new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)

export const alignUp = (value: number, alignment: number): number => Math.ceil(value / alignment) * alignment

/** Order of code units, the same on every host and in every locale. */
export const byCodeUnits = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0)

export async function sha256(bytes: Bytes): Promise<string> {
  const digest = await crypto.subtle.digest('SHA-256', bytes as Uint8Array<ArrayBuffer>)
  return [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, '0')).join('')
}
