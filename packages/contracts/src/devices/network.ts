/** Networks: a cable that carries Ethernet frames between a network card and a back end. Independent of cards and of protocols above Ethernet. */

import type { Clock } from './clock.ts'
import type { Log } from '../base/log.ts'
import type { Metrics } from '../base/metrics.ts'
import { token } from '../base/token.ts'

/**
 * Work on a frame that the sender leaves to the receiver. One object serves many frames: it is valid during the call only, and its owner changes it
 * in place.
 */
export interface FrameWork {
  /**
   * A 16-bit Internet checksum is to be computed over the bytes from here to the frame's end, and stored `checksumOffset` bytes from here. The
   * field holds the sum of the pseudo header. -1: the frame's checksums are right as they are.
   */
  checksumStart: number
  checksumOffset: number
  /** TCP payload bytes of each segment that the frame is to be cut into. 0: it is a single frame. */
  segmentSize: number
  /** IP version of a frame to be cut. The frame itself says where its headers end. */
  segmentIp: 0 | 4 | 6
}

export const createFrameWork = (): FrameWork => ({
  checksumStart: -1,
  checksumOffset: 0,
  segmentSize: 0,
  segmentIp: 0,
})

/** No work is left. */
export const NO_WORK: Readonly<FrameWork> = Object.freeze(createFrameWork())

/** Work that one end of a cable accepts from the other. */
export interface FrameOffloads {
  readonly checksum: boolean
  /** TCP segmentation, over IPv4 and IPv6. */
  readonly segment4: boolean
  readonly segment6: boolean
}

export const NO_OFFLOADS: FrameOffloads = { checksum: false, segment4: false, segment6: false }
export const ALL_OFFLOADS: FrameOffloads = { checksum: true, segment4: true, segment6: true }

/** Ethernet header; and the longest frame on a cable, which only a frame to be cut may be. No frame has a frame check sequence. */
export const ETHERNET_HEADER = 14
export const LONGEST_FRAME = ETHERNET_HEADER + 65535
export const SHORTEST_FRAME = ETHERNET_HEADER

/**
 * One end of a cable: the card's, and the network's. Each calls the other; both run in the thread of the VM. Frames have `SHORTEST_FRAME` to
 * `LONGEST_FRAME` bytes and any content: the other end is hostile.
 */
export interface CableEnd {
  /** Work that frames sent to this end may leave undone. The card's value changes with its driver: check it before each frame. */
  readonly offloads: FrameOffloads
  /**
   * A frame arrives; both arguments are valid during the call only. False: there is no room, and the frame was not taken; `ready` of the other end
   * is called once there is. A frame that is dropped was taken.
   */
  receive(frame: Uint8Array, work: Readonly<FrameWork>): boolean
  /** End of a batch: interrupts and acknowledgements that waited for it are sent. */
  flush(): void
  /** The other end, having answered false to `receive`, has room again. */
  ready(): void
  /** The other end's carrier. Frames sent while it is off are dropped. On from the start. */
  carrier(on: boolean): void
}

/** What a network receives from the VM. */
export interface NetworkSurroundings {
  /** Guest time: connections pause with the guest. */
  readonly clock: Pick<Clock, 'nowNs' | 'setTimer' | 'cancel'>
  readonly metrics: Metrics
  readonly log: Log
}

/** A network, opened for one card. */
export interface NetworkBackend {
  /** Six bytes: the card's address if its configuration names none. */
  readonly macAddress: Uint8Array
  /** Bytes of payload of an Ethernet frame. */
  readonly mtu: number
  /** Connects a card, once. Returns the network's end of the cable. */
  connect(card: CableEnd, surroundings: NetworkSurroundings): CableEnd
  close(): Promise<void>
}

/** Configuration of a card's network. */
export interface NetworkRequest {
  /** `user`, `hub:NAME`, `socket:PATH`, `socket:HOST:PORT`, `passt`. */
  readonly network: string
  /** The folder that relative paths refer to. Absent: the working folder. */
  readonly folder?: string | undefined
  /** Six bytes in hexadecimal, `52:54:00:12:34:56`. Absent: the network chooses. */
  readonly mac?: string | undefined
  /** Absent: 1500. */
  readonly mtu?: number | undefined
  /** Ports of the host that lead to ports of the guest: `127.0.0.1:2222:22`, `udp:127.0.0.1:5353:53`. */
  readonly forward?: readonly string[] | undefined
  /** Which TCP and UDP ports of the host's loopback the gateway's address leads to. Absent: none. */
  readonly loopback?: 'open' | readonly number[] | undefined
  /** Where the guest may connect to: addresses and networks, `192.0.2.0/24`, with a port, `192.0.2.1:443`, `[2001:db8::]/32`. Absent: anywhere. */
  readonly allow?: readonly string[] | undefined
  /** Where it may not; takes precedence over `allow`. */
  readonly deny?: readonly string[] | undefined
  /** All frames are also written to this file, in pcap format. */
  readonly capture?: string | undefined
  /** Frames lost, late, twice and out of order, for tests. */
  readonly impair?: NetworkImpairment | undefined
}

/** Each a probability of 0 to 1, or milliseconds. */
export interface NetworkImpairment {
  readonly loss?: number | undefined
  readonly duplicate?: number | undefined
  readonly reorder?: number | undefined
  readonly delayMs?: number | undefined
  /** Seed of the random numbers: equal seeds give equal impairment. */
  readonly seed?: number | undefined
}

/** A card's cable can be unplugged and plugged while the guest runs. Offered by devices in `Device.offers`. */
export interface NetworkCable {
  readonly plugged: boolean
  plug(on: boolean): void
}
export const NetworkCable = token<NetworkCable>('NetworkCable')
