/** Constants of the network device. ("Network Device") */

export const NetFeature = {
  checksum: 0,
  guestChecksum: 1,
  controlGuestOffloads: 2,
  mtu: 3,
  mac: 5,
  guestTso4: 7,
  guestTso6: 8,
  hostTso4: 11,
  hostTso6: 12,
  mergeableBuffers: 15,
  status: 16,
  controlQueue: 17,
  controlRx: 18,
  controlVlan: 19,
  guestAnnounce: 21,
  multiQueue: 22,
  controlMac: 23,
} as const

/** struct virtio_net_config */
export const NetConfig = { mac: 0, status: 6, maxPairs: 8, mtu: 10, size: 12 } as const
export const NetStatus = { linkUp: 1, announce: 2 } as const

/** struct virtio_net_hdr: always with num_buffers, as VIRTIO_F_VERSION_1 has it. */
export const NetHeader = {
  flags: 0,
  gsoType: 1,
  headerLength: 2,
  gsoSize: 4,
  checksumStart: 6,
  checksumOffset: 8,
  buffers: 10,
  size: 12,
} as const
export const HeaderFlag = { needsChecksum: 1 } as const
export const GsoType = { none: 0, tcp4: 1, tcp6: 4, ecn: 0x80 } as const

/** Classes and commands of the control queue. */
export const Control = {
  rx: { class: 0, promiscuous: 0, allMulticast: 1, allUnicast: 2, noMulticast: 3, noUnicast: 4, noBroadcast: 5 },
  mac: { class: 1, setTable: 0, setAddress: 1 },
  vlan: { class: 2, add: 0, remove: 1 },
  announce: { class: 3, acknowledge: 0 },
  multiQueue: { class: 4, setPairs: 0 },
  offloads: { class: 5, set: 0 },
} as const
export const CONTROL_OK = 0
export const CONTROL_ERROR = 1
