/** A run as a file that Perfetto (and chrome://tracing) opens. (Trace Event Format, "JSON Array Format") */

import { createWriteStream } from 'node:fs'
import type { WriteStream } from 'node:fs'
import { once } from 'node:events'
import { NonrootError } from '@nonroot/contracts'
import type { TraceEvents } from './protocol.ts'

const FIELDS = 4
const COUNTER_FIELDS = 3

export class TraceFile {
  readonly #stream: WriteStream
  readonly #path: string
  /** The first error of a write, reported on closing. */
  #failure: Error | undefined
  readonly #names: string[] = []
  readonly #tracks = new Set<number>()
  #first = true
  #text = '{"displayTimeUnit":"ns","traceEvents":['

  private constructor(stream: WriteStream, path: string) {
    this.#stream = stream
    this.#path = path
    stream.on('error', (error) => (this.#failure ??= error))
    this.#event({ ph: 'M', pid: 1, name: 'process_name', args: { name: 'nonroot' } })
  }

  static async create(path: string): Promise<TraceFile> {
    const stream = createWriteStream(path)
    try {
      await once(stream, 'open')
    } catch (error) {
      throw failed(path, error as Error)
    }
    return new TraceFile(stream, path)
  }

  add({ names, slices, counters }: TraceEvents): void {
    this.#names.push(...names)
    for (let at = 0; at < slices.length; at += FIELDS) {
      const [track, name, start, end] = slices.subarray(at, at + FIELDS) as unknown as [number, number, number, number]
      const tid = track + 1
      if (!this.#tracks.has(track)) {
        this.#tracks.add(track)
        this.#event({ ph: 'M', pid: 1, tid, name: 'thread_name', args: { name: this.#names[track] } })
      }
      // Rounded before they are subtracted: what ends within another's time does so to the last digit, too.
      const [from, to] = [nanoseconds(start), nanoseconds(end)]
      this.#event({ ph: 'X', pid: 1, tid, cat: 'vm', name: this.#names[name], ts: from / 1000, dur: (to - from) / 1000 })
    }
    for (let at = 0; at < counters.length; at += COUNTER_FIELDS) {
      const name = this.#names[counters[at]!]
      const ts = nanoseconds(counters[at + 1]!) / 1000
      this.#event({ ph: 'C', pid: 1, cat: 'vm', name, ts, args: { value: counters[at + 2] } })
    }
    this.#flush()
  }

  #event(event: Record<string, unknown>): void {
    this.#text += `${this.#first ? '' : ','}\n${JSON.stringify(event)}`
    this.#first = false
  }
  #flush(): void {
    this.#stream.write(this.#text)
    this.#text = ''
  }

  /** Throws if not all of it could be written. */
  async close(): Promise<void> {
    const closed = this.#stream.closed ? undefined : once(this.#stream, 'close')
    this.#stream.end(`${this.#text}\n]}\n`)
    await closed
    if (this.#failure) throw failed(this.#path, this.#failure)
  }
}

const nanoseconds = (ms: number): number => Math.round(ms * 1e6)

const failed = (path: string, cause: Error): NonrootError =>
  new NonrootError({
    code: 'host.file',
    message: `cannot write the trace ${path}: ${cause.message}`,
    thing: path,
    value: path,
    cause,
  })
