/** PCI configuration space, type 0, as facts. (PCI Local Bus 3.0, "Configuration Space"; "MSI and MSI-X Capabilities") */

export const Config = {
  vendorId: 0x00,
  deviceId: 0x02,
  command: 0x04,
  status: 0x06,
  revision: 0x08,
  programmingInterface: 0x09,
  subclass: 0x0a,
  baseClass: 0x0b,
  cacheLineSize: 0x0c,
  latencyTimer: 0x0d,
  headerType: 0x0e,
  bar0: 0x10,
  subsystemVendorId: 0x2c,
  subsystemId: 0x2e,
  capabilities: 0x34,
  interruptLine: 0x3c,
  interruptPin: 0x3d,
  firstCapability: 0x40,
} as const

export const CONFIG_SIZE = 256
/** With PCI Express' extended space, where there is nothing. */
export const EXTENDED_CONFIG_SIZE = 4096

export const Command = {
  io: 0x001,
  memory: 0x002,
  busMaster: 0x004,
  interruptDisable: 0x400,
  writable: 0x0547,
} as const
export const Status = { interrupt: 0x08, capabilities: 0x10 } as const
export const MULTI_FUNCTION = 0x80

export const BarBits = { io: 1, memory64: 4, prefetchable: 8 } as const

export const CapabilityId = { msi: 0x05, msix: 0x11 } as const
/** Message control words. */
export const MsixControl = { enable: 0x8000, functionMask: 0x4000 } as const
export const MsiControl = { enable: 0x01, address64: 0x80, perVectorMask: 0x100, multipleEnable: 0x70 } as const
/** Offsets in the MSI capability with 64-bit address and per-vector masking. */
export const MsiOffset = {
  control: 2,
  addressLow: 4,
  addressHigh: 8,
  data: 12,
  mask: 16,
  pending: 20,
  size: 24,
} as const
