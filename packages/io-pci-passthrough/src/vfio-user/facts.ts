/** Numbers of the vfio-user protocol. (vfio-user Protocol Specification 0.9.2; structures of <linux/vfio.h>) */

export const Command = {
  version: 1,
  dmaMap: 2,
  dmaUnmap: 3,
  deviceInfo: 4,
  regionInfo: 5,
  regionIoFds: 6,
  irqInfo: 7,
  setIrqs: 8,
  regionRead: 9,
  regionWrite: 10,
  dmaRead: 11,
  dmaWrite: 12,
  deviceReset: 13,
  /** Not in the specification, and sent only where both have named `interrupt_messages`: a vector, instead of an eventfd that is written. */
  interrupt: 0x8001,
} as const

export const HEADER_SIZE = 16
export const Header = { id: 0, command: 2, size: 4, flags: 8, error: 12 } as const
export const HeaderFlag = { type: 0xf, command: 0, reply: 1, noReply: 0x10, error: 0x20 } as const

/** Offsets from the end of the header, and the size of what has a fixed one. */
export const VersionBody = { major: 0, minor: 2, data: 4 } as const
export const DmaMapBody = { argsz: 0, flags: 4, offset: 8, address: 16, length: 24, size: 32 } as const
export const DmaUnmapBody = { argsz: 0, flags: 4, address: 8, length: 16, size: 24 } as const
export const DeviceInfoBody = { argsz: 0, flags: 4, regions: 8, irqs: 12, size: 16 } as const
export const RegionInfoBody = { argsz: 0, flags: 4, index: 8, capOffset: 12, length: 16, offset: 24, size: 32 } as const
export const IrqInfoBody = { argsz: 0, flags: 4, index: 8, count: 12, size: 16 } as const
export const SetIrqsBody = { argsz: 0, flags: 4, index: 8, start: 12, count: 16, data: 20 } as const
export const RegionBody = { offset: 0, region: 8, count: 12, data: 16 } as const
export const DmaBody = { address: 0, count: 8, data: 16 } as const
export const InterruptBody = { vector: 0, size: 4 } as const

export const DmaFlag = { read: 1, write: 2 } as const
export const DeviceFlag = { reset: 1, pci: 2 } as const
export const RegionFlag = { read: 1, write: 2 } as const
export const IrqInfoFlag = { maskable: 2, noResize: 8 } as const
export const IrqSetFlag = {
  none: 1,
  bool: 2,
  eventfd: 4,
  data: 7,
  mask: 8,
  unmask: 16,
  trigger: 32,
  action: 0x38,
} as const

export const Region = { bar0: 0, bars: 6, rom: 6, configuration: 7, vga: 8, count: 9 } as const
export const Irq = { intx: 0, msi: 1, msix: 2, error: 3, request: 4, count: 5 } as const

export const Errno = { ENOENT: 2, EFAULT: 14, EEXIST: 17, EINVAL: 22, ENOSPC: 28, ENOTSUP: 95 } as const

export const MAJOR = 0
export const MINOR = 1
/** Where a peer does not name `max_data_xfer_size`, and what we name. */
export const MAX_TRANSFER = 1 << 20
/** The largest message that obeys it: its fixed part is the longest of all. */
export const MAX_MESSAGE = HEADER_SIZE + RegionBody.data + MAX_TRANSFER
export const MAX_DMA_MAPS = 65_535
export const CONFIGURATION_SIZE = 256
