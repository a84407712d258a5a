/** Entropy device: random bytes on request. The smallest complete device; a template for others. ("Entropy Device") */

import type { EntropyBackend, VirtioDevice, Virtqueue } from '@nonroot/contracts'

/** A driver that asks for more gets this much and asks again. */
const MOST_BYTES = 64 * 1024

export function createEntropy(source: EntropyBackend): VirtioDevice {
  return {
    deviceId: 4,
    queueSizes: [64],
    process(queue: Virtqueue) {
      for (let chain = queue.pop(); chain; chain = queue.pop()) {
        const bytes = new Uint8Array(Math.min(chain.writable, MOST_BYTES))
        source.fill(bytes)
        chain.write(0, bytes)
        queue.push(chain, bytes.length)
      }
    },
  }
}
