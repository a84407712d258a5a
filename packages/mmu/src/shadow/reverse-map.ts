/** @hot Which shadow leaves map a guest frame: a linked list per frame in flat arrays. Knows frame numbers and word indices only. */

/** Ends a list. */
export const NONE = 0

export class ReverseMap {
  /** First node of each guest frame's list. */
  private readonly heads: Int32Array
  /** Node n: [word index of the entry, next node]. Node 0 is none. */
  private nodes = new Int32Array(2 * 1024)
  private used = 1
  private free = NONE

  constructor(frames: number) {
    this.heads = new Int32Array(frames)
  }

  first(frame: number): number {
    return this.heads[frame]!
  }
  next(node: number): number {
    return this.nodes[node * 2 + 1]!
  }
  /** Word index of the entry in host memory. */
  entry(node: number): number {
    return this.nodes[node * 2]!
  }

  add(frame: number, entry: number): void {
    let node = this.free
    if (node !== NONE) {
      this.free = this.nodes[node * 2 + 1]!
    } else {
      node = this.used++
      if (node * 2 >= this.nodes.length) {
        const grown = new Int32Array(this.nodes.length * 2)
        grown.set(this.nodes)
        this.nodes = grown
      }
    }
    this.nodes[node * 2] = entry
    this.nodes[node * 2 + 1] = this.heads[frame]!
    this.heads[frame] = node
  }

  remove(frame: number, entry: number): void {
    let before = NONE
    for (let node = this.heads[frame]!; node !== NONE; before = node, node = this.nodes[node * 2 + 1]!) {
      if (this.nodes[node * 2] !== entry) continue
      const next = this.nodes[node * 2 + 1]!
      if (before === NONE) this.heads[frame] = next
      else this.nodes[before * 2 + 1] = next
      this.nodes[node * 2 + 1] = this.free
      this.free = node
      return
    }
  }
}
