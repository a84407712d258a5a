/** What the two sides tell each other first: version and capabilities. */

import { MAJOR, MAX_DMA_MAPS, MAX_TRANSFER, MINOR, VersionBody } from './facts.ts'

/** Those that are not named have the specification's defaults. */
export interface Capabilities {
  /** File descriptors that the sender can receive with a message. */
  readonly max_msg_fds?: number
  /** Bytes of one transfer that the sender takes. */
  readonly max_data_xfer_size?: number
  readonly max_dma_maps?: number
  /** Ours: vectors come as messages. */
  readonly interrupt_messages?: boolean
}

export interface Version {
  readonly major: number
  readonly minor: number
  readonly capabilities: Capabilities
}

/** Node cannot receive file descriptors: none are wanted. */
export const OWN_VERSION: Version = {
  major: MAJOR,
  minor: MINOR,
  capabilities: {
    max_msg_fds: 0,
    max_data_xfer_size: MAX_TRANSFER,
    max_dma_maps: MAX_DMA_MAPS,
    interrupt_messages: true,
  },
}

export function encodeVersion({ major, minor, capabilities }: Version): Uint8Array {
  const text = new TextEncoder().encode(`${JSON.stringify({ capabilities })}\0`)
  const bytes = new Uint8Array(VersionBody.data + text.length)
  const view = new DataView(bytes.buffer)
  view.setUint16(VersionBody.major, major, true)
  view.setUint16(VersionBody.minor, minor, true)
  bytes.set(text, VersionBody.data)
  return bytes
}

/** Undefined: it is none. */
export function decodeVersion(body: DataView): Version | undefined {
  if (body.byteLength < VersionBody.data) return undefined
  const major = body.getUint16(VersionBody.major, true)
  const minor = body.getUint16(VersionBody.minor, true)
  const data = new Uint8Array(body.buffer, body.byteOffset + VersionBody.data, body.byteLength - VersionBody.data)
  if (data.length === 0) return { major, minor, capabilities: {} }
  if (data.at(-1) !== 0) return undefined
  let told: unknown
  try {
    told = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(data.subarray(0, -1)))
  } catch {
    return undefined
  }
  if (!isObject(told)) return undefined
  const given = told['capabilities'] ?? {}
  if (!isObject(given)) return undefined
  const counts = ['max_msg_fds', 'max_data_xfer_size', 'max_dma_maps']
  const wrong = counts.some((name) => given[name] !== undefined && !isCount(given[name]))
  return wrong ? undefined : { major, minor, capabilities: given }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const isCount = (value: unknown): boolean => Number.isSafeInteger(value) && (value as number) >= 0

/** The server's answer to what a client proposes: of its capabilities, those that we have. */
export function answer(proposed: Version): Version {
  const named = Object.entries(OWN_VERSION.capabilities).filter(([name]) => name in proposed.capabilities)
  return { major: MAJOR, minor: Math.min(proposed.minor, MINOR), capabilities: Object.fromEntries(named) }
}

/** Bytes of one transfer that the peer takes: no more than we would. */
export const transferLimit = ({ max_data_xfer_size: limit = MAX_TRANSFER }: Capabilities): number =>
  Math.min(limit, MAX_TRANSFER)
