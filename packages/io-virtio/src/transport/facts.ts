/** Facts that both transports share: device status, feature bits, interrupt causes. ("Basic Facilities of a Virtio Device") */

export const Status = {
  acknowledge: 1,
  driver: 2,
  driverOk: 4,
  featuresOk: 8,
  needsReset: 64,
  failed: 128,
} as const

/** Bits of rings and transports. ("Reserved Feature Bits") */
export const Feature = {
  indirectDescriptors: 28,
  eventIndex: 29,
  version1: 32,
  accessPlatform: 33,
  ringPacked: 34,
  inOrder: 35,
  notificationData: 38,
  ringReset: 40,
} as const

/** ISR status and InterruptStatus. */
export const Cause = { queue: 1, configuration: 2 } as const

export const VENDOR_ID = 0x1af4
/** Words of 32 feature bits that exist. */
export const FEATURE_WORDS = 2
