/** The memory of records and of the regions' tables of jump targets. It is freed as a whole, except what was taken last. */

export class Arena {
  readonly #start: number
  readonly #end: number
  /** Address of the first free byte. */
  next: number

  constructor({ start, size }: { readonly start: number; readonly size: number }) {
    this.#start = this.next = start
    this.#end = start + size
  }

  get used(): number {
    return this.next - this.#start
  }
  get left(): number {
    return this.#end - this.next
  }

  take(bytes: number): number {
    const start = this.next
    this.next += bytes
    return start
  }

  /** Frees [start, end) if it was taken last. */
  free(start: number, end: number): void {
    if (this.next === end) this.next = start
  }
  clear(): void {
    this.next = this.#start
  }
}
