/** Constants of TCP, and our own limits. */

export const Flag = { fin: 1, syn: 2, rst: 4, psh: 8, ack: 16, urg: 32 } as const
/** Kinds of options. (RFC 9293, RFC 7323, RFC 2018) */
export const Option = { end: 0, nop: 1, mss: 2, windowScale: 3, sackPermitted: 4, sack: 5 } as const

/** What a peer takes that does not say. (RFC 9293, "Maximum Segment Size Option") */
export const DEFAULT_MSS = 536
/** A peer that asks for less would have us send headers only. */
export const LEAST_MSS = 64
/** RFC 7323, "Window Scale Option": "MUST NOT exceed 14". */
export const MOST_SCALE = 14
/** Of ours: 65535 << 3 is more than the largest window. */
export const OWN_SCALE = 3

export const MOST_WINDOW = 256 * 1024
export const LEAST_WINDOW = 16 * 1024

export const MS = 1e6
/** RFC 6298. A second at least: the cable loses nothing by itself, but a host that has other work lets the guest wait for long. */
export const FIRST_RTO = 1000 * MS
export const LEAST_RTO = 1000 * MS
export const MOST_RTO = 60_000 * MS
/** Retransmissions without an answer until a connection is given up: some two minutes. (RFC 9293, R2: at least 100 s) */
export const MOST_RETRIES = 9
/** Of SYNs. (RFC 1122: R2 of a SYN is at least three minutes: a guest that is still booting may take as long) */
export const MOST_SYN_RETRIES = 7
/**
 * How long less than two segments may wait for their acknowledgement, which an answer may carry. (RFC 9293: less than 0.5 s) As long as it is out, a guest gathers small
 * writes into whole segments; a program that writes twice before it reads waits for it.
 */
export const ACKNOWLEDGEMENT_DELAY = 2 * MS
/** Twice the longest life of a segment on a cable that holds none: there for a lost last acknowledgement. */
export const TIME_WAIT = 10_000 * MS
/** A guest that was reset does not know the connection any more, and says so if asked. */
export const KEEP_ALIVE = 600_000 * MS
/** We sent our FIN, and the program on the host is gone; a guest that never sends its own does not hold the connection for ever. */
export const FIN_WAIT = 120_000 * MS

/** Duplicate acknowledgements that mean loss. (RFC 5681, RFC 6675) */
export const DUPLICATE_THRESHOLD = 3
/** RFC 6928 */
export const FIRST_SEGMENTS = 10
export const MOST_CONGESTION_WINDOW = 4 * 1024 * 1024
