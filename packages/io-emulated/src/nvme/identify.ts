/** Identify data of the controller and its namespace, and their logs. (Base Specification, "Identify", "Get Log Page") */

import { MOST_EVENTS, MOST_PAGES_LOG2, PAGE, VERSION } from './facts.ts'

export const NAMESPACE = 1

export interface IdentifyFacts {
  readonly serial: string
  readonly vendorId: number
  readonly subsystemVendorId: number
  readonly sectors: number
  readonly sectorSize: number
  readonly readOnly: boolean
  readonly discard: boolean
}

/** Values of the field "Controller or Namespace Structure". */
export const Structure = {
  namespace: 0x00,
  controller: 0x01,
  activeNamespaces: 0x02,
  descriptors: 0x03,
} as const

/** The structure, undefined for one that there is not. */
export function identify(structure: number, namespace: number, facts: IdentifyFacts): Uint8Array | undefined {
  switch (structure) {
    case Structure.namespace:
      // "A namespace that is not active": zeros.
      return namespace === NAMESPACE || namespace === 0xffff_ffff ? namespaceData(facts) : new Uint8Array(PAGE)
    case Structure.controller:
      return controllerData(facts)
    case Structure.activeNamespaces: {
      const list = new Uint8Array(PAGE)
      if (namespace < NAMESPACE) list[0] = NAMESPACE
      return list
    }
    case Structure.descriptors:
      return descriptors(facts)
    default:
      return undefined
  }
}

function controllerData({ serial, vendorId, subsystemVendorId, readOnly, discard }: IdentifyFacts): Uint8Array {
  const bytes = new Uint8Array(PAGE)
  const view = new DataView(bytes.buffer)
  const text = (at: number, length: number, value: string): void =>
    bytes.set(new TextEncoder().encode(value.padEnd(length)).subarray(0, length), at)
  view.setUint16(0, vendorId, true)
  view.setUint16(2, subsystemVendorId, true)
  text(4, 20, serial)
  text(24, 40, 'nonroot NVMe')
  text(64, 8, '1.0')
  bytes[77] = MOST_PAGES_LOG2
  view.setUint32(80, VERSION, true)
  view.setUint32(92, 1 << 8, true) // OAES: notices of changed namespaces
  bytes[111] = 1 // CNTRLTYPE: an I/O controller
  bytes[258] = 3 // ACL: 4 aborts at a time
  bytes[259] = MOST_EVENTS - 1
  bytes[260] = 0x03 // FRMW: one slot, read-only
  view.setUint16(266, 343, true) // WCTEMP, in kelvin
  view.setUint16(268, 353, true) // CCTEMP
  bytes[512] = 0x66 // SQES: 64 bytes
  bytes[513] = 0x44 // CQES: 16 bytes
  view.setUint32(516, 1, true) // NN
  view.setUint16(520, readOnly ? 0 : (discard ? 1 << 2 : 0) | (1 << 3), true) // ONCS: Dataset Management, Write Zeroes
  bytes[525] = readOnly ? 0 : 1 // VWC
  bytes.set(new TextEncoder().encode(`nqn.2026-01.dev.nonroot:nvme:${serial}`), 768) // SUBNQN
  view.setUint16(2048, 2500, true) // PSD0: at most 25 W
  return bytes
}

function namespaceData({ sectors, sectorSize, readOnly }: IdentifyFacts): Uint8Array {
  const bytes = new Uint8Array(PAGE)
  const view = new DataView(bytes.buffer)
  for (const at of [0, 8, 16]) view.setBigUint64(at, BigInt(sectors), true) // NSZE, NCAP, NUSE
  if (sectorSize < PAGE) {
    bytes[24] = 1 << 4 // NSFEAT: the following four say something
    const preferred = PAGE / sectorSize - 1
    for (const at of [64, 66, 68, 70]) view.setUint16(at, preferred, true)
  }
  bytes[99] = readOnly ? 1 : 0 // NSATTR
  bytes[130] = Math.log2(sectorSize) // LBADS of format 0
  return bytes
}

/** One descriptor: a UUID that the serial number determines, so that a disk keeps its name. */
function descriptors({ serial }: IdentifyFacts): Uint8Array {
  const bytes = new Uint8Array(PAGE)
  bytes[0] = 3
  bytes[1] = 16
  // FNV-1a over the serial number, a byte of the UUID a round.
  let hash = 0x811c_9dc5
  for (let index = 0; index < 16; index++) {
    for (const character of `${serial}${index}`) hash = Math.imul(hash ^ character.charCodeAt(0), 0x0100_0193)
    bytes[4 + index] = hash >>> 24
  }
  bytes[10] = (bytes[10]! & 0x0f) | 0x80 // version 8: the maker's own
  bytes[12] = (bytes[12]! & 0x3f) | 0x80
  return bytes
}

export interface Usage {
  readonly reads: number
  readonly writes: number
  readonly bytesRead: number
  readonly bytesWritten: number
  readonly errors: number
}

/** "SMART / Health Information". */
export function healthLog(usage: Usage): Uint8Array {
  const bytes = new Uint8Array(512)
  const view = new DataView(bytes.buffer)
  view.setUint16(1, 300, true) // kelvin
  bytes[3] = 100 // available spare
  bytes[4] = 10 // its threshold
  const big = (at: number, value: number): void => view.setBigUint64(at, BigInt(Math.ceil(value)), true)
  // Data units are thousands of 512 bytes.
  big(32, usage.bytesRead / 512_000)
  big(48, usage.bytesWritten / 512_000)
  big(64, usage.reads)
  big(80, usage.writes)
  big(160, usage.errors)
  return bytes
}

/** "Firmware Slot Information": slot 1 runs. */
export function firmwareLog(): Uint8Array {
  const bytes = new Uint8Array(512)
  bytes[0] = 1
  bytes.set(new TextEncoder().encode('1.0     '), 8)
  return bytes
}
