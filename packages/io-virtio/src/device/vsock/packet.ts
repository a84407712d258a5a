/** Packets of the socket device: header fields and constants. ("Socket Device") */

export const HEADER_SIZE = 44
export const HOST_CID = 2
export const STREAM = 1

export const Operation = {
  request: 1,
  response: 2,
  reset: 3,
  shutdown: 4,
  data: 5,
  creditUpdate: 6,
  creditRequest: 7,
} as const

/** Flags of a shutdown: the sender will not receive, or not send, any more. */
export const Shutdown = { receive: 1, send: 2, both: 3 } as const

const Offset = {
  sourceCid: 0,
  destinationCid: 8,
  sourcePort: 16,
  destinationPort: 20,
  length: 24,
  type: 28,
  operation: 30,
  flags: 32,
  bufferSize: 36,
  forwarded: 40,
} as const

export interface Packet {
  readonly guestPort: number
  readonly hostPort: number
  readonly length: number
  readonly type: number
  readonly operation: number
  readonly flags: number
  readonly bufferSize: number
  readonly forwarded: number
}

/** A packet from the guest. Undefined: it is not from this guest to this host. */
export function readPacket(bytes: Uint8Array, guestCid: number): Packet | undefined {
  const view = new DataView(bytes.buffer, bytes.byteOffset)
  const cid = (at: number): number => (view.getUint32(at + 4, true) === 0 ? view.getUint32(at, true) : -1)
  if (cid(Offset.sourceCid) !== guestCid || cid(Offset.destinationCid) !== HOST_CID) return undefined
  return {
    guestPort: view.getUint32(Offset.sourcePort, true),
    hostPort: view.getUint32(Offset.destinationPort, true),
    length: view.getUint32(Offset.length, true),
    type: view.getUint16(Offset.type, true),
    operation: view.getUint16(Offset.operation, true),
    flags: view.getUint32(Offset.flags, true),
    bufferSize: view.getUint32(Offset.bufferSize, true),
    forwarded: view.getUint32(Offset.forwarded, true),
  }
}

/** A packet to the guest. */
export function writePacket(packet: Packet, guestCid: number): Uint8Array {
  const bytes = new Uint8Array(HEADER_SIZE)
  const view = new DataView(bytes.buffer)
  view.setUint32(Offset.sourceCid, HOST_CID, true)
  view.setUint32(Offset.destinationCid, guestCid, true)
  view.setUint32(Offset.sourcePort, packet.hostPort, true)
  view.setUint32(Offset.destinationPort, packet.guestPort, true)
  view.setUint32(Offset.length, packet.length, true)
  view.setUint16(Offset.type, packet.type, true)
  view.setUint16(Offset.operation, packet.operation, true)
  view.setUint32(Offset.flags, packet.flags, true)
  view.setUint32(Offset.bufferSize, packet.bufferSize, true)
  view.setUint32(Offset.forwarded, packet.forwarded, true)
  return bytes
}
