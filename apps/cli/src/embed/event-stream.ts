/** Events for any number of readers, each with `for await` from when it began. */

export class EventStream<T> {
  readonly #readers = new Set<Reader<T>>()
  #ended = false

  emit(event: T): void {
    for (const reader of this.#readers) reader.add(event)
  }

  /** Readers end when they have read what came before. */
  end(): void {
    this.#ended = true
    for (const reader of this.#readers) reader.end()
  }

  read(): AsyncIterableIterator<T> {
    const reader = new Reader<T>((gone) => this.#readers.delete(gone))
    if (this.#ended) reader.end()
    else this.#readers.add(reader)
    return reader
  }
}

class Reader<T> implements AsyncIterableIterator<T> {
  readonly #waiting: T[] = []
  readonly #forget: (reader: Reader<T>) => void
  #wake: (() => void) | undefined
  #ended = false

  constructor(forget: (reader: Reader<T>) => void) {
    this.#forget = forget
  }

  add(event: T): void {
    this.#waiting.push(event)
    this.#wake?.()
  }

  end(): void {
    this.#ended = true
    this.#wake?.()
  }

  async next(): Promise<IteratorResult<T, undefined>> {
    while (this.#waiting.length === 0 && !this.#ended) await new Promise<void>((resolve) => (this.#wake = resolve))
    return this.#waiting.length > 0 ? { done: false, value: this.#waiting.shift()! } : { done: true, value: undefined }
  }

  async return(): Promise<IteratorResult<T, undefined>> {
    this.#forget(this)
    this.end()
    return { done: true, value: undefined }
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}
