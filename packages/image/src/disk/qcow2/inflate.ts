/** Compressed clusters: raw deflate, then padding. */

/** Exactly `size` bytes, or an error. */
export async function inflateCluster(packed: Uint8Array, size: number): Promise<Uint8Array> {
  const stream = new Blob([packed as Uint8Array<ArrayBuffer>])
    .stream()
    .pipeThrough(new DecompressionStream('deflate-raw'))
  const reader = stream.getReader()
  const whole = new Uint8Array(size)
  let filled = 0
  try {
    while (filled < size) {
      const { done, value } = await reader.read()
      if (done) break
      const part = value.subarray(0, size - filled)
      whole.set(part, filled)
      filled += part.length
    }
  } catch (error) {
    // What follows the cluster's end is padding, which the decoder complains of.
    if (filled < size) throw error
  }
  await reader.cancel().catch(() => {})
  if (filled < size) throw new Error(`a compressed cluster holds ${filled} of ${size} bytes`)
  return whole
}
