/** Slots of network rings. (Xen, "public/io/netif.h") */

export const TX_SIZE = 12
export const TX = { reference: 0, offset: 4, flags: 6, id: 8, size: 10 } as const
export const TX_RESPONSE_SIZE = 4
export const TX_RESPONSE = { id: 0, status: 2 } as const
export const TX_FLAG = { needsChecksum: 1, moreData: 4, extra: 8 } as const
export const TX_STATUS = { ok: 0, error: -1, dropped: -2, extra: 1 } as const

export const RX_SIZE = 8
export const RX = { id: 0, reference: 4 } as const
export const RX_RESPONSE = { id: 0, offset: 2, flags: 4, status: 6 } as const
export const RX_FLAG = { dataValid: 1, needsChecksum: 2, moreData: 4, extra: 8 } as const

/** A slot that says more of the one before. */
export const EXTRA = { type: 0, flags: 1, segmentSize: 2, segmentType: 4, features: 6 } as const
export const EXTRA_TYPE = { segmentation: 1 } as const
export const EXTRA_MORE = 1
export const SEGMENT_TYPE = { tcp4: 1, tcp6: 2 } as const

/** Slots with data of one frame that every back end takes. */
export const MOST_SLOTS = 18
export const MOST_EXTRAS = 4
