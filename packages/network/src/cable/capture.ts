/** A network whose frames are also written to a file, in both directions. (pcap, with nanoseconds, as Wireshark and tcpdump read it) */

import type { CableEnd, CaptureFile, FrameWork, NetworkBackend, NetworkSurroundings } from '@nonroot/contracts'

const MAGIC_NANOSECONDS = 0xa1b2_3c4d
const ETHERNET_LINK = 1
const SNAP_LENGTH = 262_144
const RECORD_HEADER = 16
const SECOND = 1e9

export function withCapture(network: NetworkBackend, file: CaptureFile): NetworkBackend {
  file.write(fileHeader())
  return {
    macAddress: network.macAddress,
    mtu: network.mtu,
    connect(card, surroundings) {
      const record = recorder(file, surroundings)
      return tapped(network.connect(tapped(card, record), surroundings), record)
    },
    async close() {
      await network.close()
      await file.close()
    },
  }
}

/** An end whose frames are recorded as they are taken: with what is left undone in them. */
const tapped = (end: CableEnd, record: (frame: Uint8Array) => void): CableEnd => ({
  get offloads() {
    return end.offloads
  },
  receive(frame: Uint8Array, work: Readonly<FrameWork>) {
    const taken = end.receive(frame, work)
    if (taken) record(frame)
    return taken
  },
  flush: () => end.flush(),
  ready: () => end.ready(),
  carrier: (on) => end.carrier(on),
})

function fileHeader(): Uint8Array {
  const view = new DataView(new ArrayBuffer(24))
  view.setUint32(0, MAGIC_NANOSECONDS, true)
  view.setUint16(4, 2, true)
  view.setUint16(6, 4, true)
  view.setUint32(16, SNAP_LENGTH, true)
  view.setUint32(20, ETHERNET_LINK, true)
  return new Uint8Array(view.buffer)
}

/** Times are the host's when the card was plugged in, and go on as the guest's clock does. */
function recorder(file: CaptureFile, { clock }: NetworkSurroundings): (frame: Uint8Array) => void {
  const startMs = Date.now()
  const startNs = clock.nowNs()
  return (frame) => {
    const bytes = new Uint8Array(RECORD_HEADER + frame.length)
    const view = new DataView(bytes.buffer)
    const ns = (startMs % 1000) * 1e6 + clock.nowNs() - startNs
    view.setUint32(0, Math.floor(startMs / 1000) + Math.floor(ns / SECOND), true)
    view.setUint32(4, Math.floor(ns % SECOND), true)
    view.setUint32(8, frame.length, true)
    view.setUint32(12, frame.length, true)
    bytes.set(frame, RECORD_HEADER)
    file.write(bytes)
  }
}
