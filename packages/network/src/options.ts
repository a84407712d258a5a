/** Options of a network card in a configuration: the network that it is plugged into. Packages of cards add their own. */

import { z } from 'zod'

const probability = z.number().min(0).max(1)

/** `mostMtu`: the longest payload, in bytes, that the card's frames can carry. */
export const networkOptions = (mostMtu: number) =>
  z.strictObject({
    /** `user`: this process forwards what the guest sends through its own sockets. `none`: the cable is not plugged. */
    network: z.string().default('user'),
    /** As `52:54:00:12:34:56`. The network chooses where absent. */
    mac: z.string().optional(),
    mtu: z.number().int().min(1280).max(mostMtu).default(1500),
    /** `HOST:PORT:GUESTPORT`: ports of the host that lead into the guest. */
    forward: z.array(z.string()).optional(),
    /** Ports of the host's loopback that the gateway's address leads to: those, or all. */
    loopback: z.union([z.literal('open'), z.array(z.number().int().min(1).max(65535))]).optional(),
    /** Where the guest may connect to, and may not: `192.0.2.0/24`, `192.0.2.1:443`. */
    allow: z.array(z.string()).optional(),
    deny: z.array(z.string()).optional(),
    /** A file that all frames are written to, as Wireshark opens it. */
    capture: z.string().optional(),
    /** Frames lost, late, twice and out of order, for tests. */
    impair: z
      .strictObject({
        loss: probability.optional(),
        duplicate: probability.optional(),
        reorder: probability.optional(),
        delayMs: z.number().min(0).max(10_000).optional(),
        seed: z.number().int().optional(),
      })
      .optional(),
  })
