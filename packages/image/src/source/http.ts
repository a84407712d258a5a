/** Files by HTTP: bounded in size, redirects and time, whatever the server does. */
import type { Bytes } from '../bytes.ts'
import { concatBytes } from '../bytes.ts'
import { ImageError, OWN_FILES } from '../errors.ts'
import type { Fetch, HttpResponse } from '../host.ts'

export interface Limits {
  /** Bytes; more are an error. */
  readonly most: number
  /** Called with the count of bytes so far. */
  readonly onBytes?: (count: number) => void
  /** Within each such time, at least `LEAST` bytes must come, or the rest. */
  readonly stallMs: number
}

const MOST_REDIRECTS = 5
const LEAST = 4096

export const mirrorFailed = (message: string, remedy = 'use another mirror'): ImageError =>
  new ImageError('mirrorFailed', message, remedy)

const unreachable = (url: URL, cause: unknown): ImageError => {
  const { message, cause: inner } = cause as Error
  const why = inner instanceof Error ? (inner.message || (inner as NodeJS.ErrnoException).code) : message
  return mirrorFailed(`${url.href} cannot be reached: ${why}`, `check the network and the mirror's address, or ${OWN_FILES}`)
}

/** Undefined: there is no such file. */
export async function getFile(fetch: Fetch, start: URL, limits: Limits): Promise<Bytes | undefined> {
  let url = start
  for (let redirects = 0; redirects <= MOST_REDIRECTS; redirects++) {
    const watch = new StallWatch(url, limits.stallMs)
    try {
      const response = await watch.race(fetch(url.href, watch.signal))
      const { status } = response
      if (status >= 300 && status < 400 && status !== 304) {
        url = redirected(url, response.headers.get('location'))
        continue
      }
      if (status === 404 || status === 410) return undefined
      if (status !== 200) throw mirrorFailed(`${url.href} answers with status ${status}`)
      return await readBody(url, response, limits, watch)
    } catch (error) {
      throw error instanceof ImageError ? error : unreachable(url, error)
    } finally {
      watch.end()
    }
  }
  throw mirrorFailed(`${start.href} redirects more than ${MOST_REDIRECTS} times`)
}

function redirected(from: URL, location: string | null): URL {
  const to = URL.parse(location ?? '', from)
  if (location === null || !to || !['http:', 'https:'].includes(to.protocol) || (from.protocol === 'https:' && to.protocol === 'http:'))
    throw mirrorFailed(`${from.href} redirects to ${location ?? 'nowhere'}`)
  return to
}

async function readBody(url: URL, { headers, body }: HttpResponse, { most, onBytes }: Limits, watch: StallWatch): Promise<Bytes> {
  const tooMuch = (size: number | string) => mirrorFailed(`${url.href} has ${size} bytes, where at most ${most} are due`)
  const told = headers.get('content-length')
  // Of an encoding (which was not asked for) the length is another.
  if (told !== null && headers.get('content-encoding') === null && Number(told) > most) throw tooMuch(told)
  const parts: Bytes[] = []
  let count = 0
  const chunks = body?.[Symbol.asyncIterator]()
  while (chunks) {
    const next = await watch.race(chunks.next())
    if (next.done) break
    parts.push(next.value)
    watch.count((count += next.value.length))
    onBytes?.(count)
    if (count > most) throw tooMuch('more')
  }
  return concatBytes(parts)
}

/** Aborts a request that brings nothing, or hardly anything. */
class StallWatch {
  private readonly controller = new AbortController()
  private readonly stalled: Promise<never>
  private readonly timer: ReturnType<typeof setInterval>
  private bytes = 0
  private before = 0

  constructor(url: URL, stallMs: number) {
    const { promise, reject } = Promise.withResolvers<never>()
    this.stalled = promise
    promise.catch(() => {})
    this.timer = setInterval(() => {
      const came = this.bytes - this.before
      this.before = this.bytes
      if (came >= LEAST) return
      reject(mirrorFailed(`${url.href} stalls: ${came} bytes came in ${stallMs / 1000} s`, 'use another mirror, or try again later'))
      this.controller.abort()
    }, stallMs)
  }

  get signal(): AbortSignal {
    return this.controller.signal
  }

  race<T>(work: Promise<T>): Promise<T> {
    work.catch(() => {})
    return Promise.race([work, this.stalled])
  }

  count(bytes: number): void {
    this.bytes = bytes
  }

  /** Whatever is still to come of the request is not wanted. */
  end(): void {
    clearInterval(this.timer)
    this.controller.abort()
  }
}
