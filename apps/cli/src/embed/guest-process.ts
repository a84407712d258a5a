/** A command in a guest, for embedders: its streams as web streams with their flow control, its status as a promise. */

import { ReadableStream, WritableStream } from 'node:stream/web'
import { NonrootError } from '@nonroot/contracts'
import { GUEST_SIGNALS } from '@nonroot/image'
import type { AgentCommand, GuestCommand, TerminalSize } from '@nonroot/image'
import type { GuestAgent } from '../run/guest-agent.ts'

export type GuestSignal = keyof typeof GUEST_SIGNALS

export interface SpawnOptions {
  /** Added to the guest's environment. */
  readonly env?: Readonly<Record<string, string>>
  /** It gets a terminal of this size, on which both outputs are one. */
  readonly terminal?: TerminalSize
  /** Ends the command by SIGKILL. `status` then rejects with the signal's reason. */
  readonly signal?: AbortSignal
}

/** A command that runs in a guest. */
export interface GuestProcess {
  readonly stdin: WritableStream<Uint8Array | string>
  /** The command waits for their readers, and so does `status`: read them, or cancel them. */
  readonly stdout: ReadableStream<Uint8Array>
  readonly stderr: ReadableStream<Uint8Array>
  /** 128 + N after signal N. Rejects with a NonrootError if it cannot be started, or if its guest ends or restarts before it. */
  readonly status: Promise<number>
  kill(signal?: GuestSignal): void
  /** Its terminal has another size. */
  resize(size: TerminalSize): void
}

/** One output: what came waits here until it is read, which `done` says to the guest. */
class Output {
  readonly stream: ReadableStream<Uint8Array>
  readonly #waiting: { readonly bytes: Uint8Array; readonly done: () => void }[] = []
  #isOpen = true
  #wake = (): void => {}

  constructor() {
    this.stream = new ReadableStream<Uint8Array>(
      {
        pull: async (controller) => {
          while (this.#waiting.length === 0 && this.#isOpen) await new Promise<void>((resolve) => (this.#wake = resolve))
          const next = this.#waiting.shift()
          if (!next) return controller.close()
          controller.enqueue(next.bytes)
          next.done()
        },
        cancel: () => {
          this.close()
          for (const { done } of this.#waiting.splice(0)) done()
        },
      },
      { highWaterMark: 0 },
    )
  }

  add(bytes: Uint8Array, done: () => void): void {
    if (!this.#isOpen) return done()
    this.#waiting.push({ bytes, done })
    this.#wake()
  }

  close(): void {
    this.#isOpen = false
    this.#wake()
  }
}

export function spawnIn(agent: GuestAgent, words: readonly string[], options: SpawnOptions = {}): GuestProcess {
  const { env = {}, terminal, signal } = options
  const [stdout, stderr] = [new Output(), new Output()]
  const settled = Promise.withResolvers<number>()
  // There may be none that waits for it.
  settled.promise.catch(() => {})
  let drained = Promise.withResolvers<void>()
  let isOver = false
  const close = (): void => {
    isOver = true
    signal?.removeEventListener('abort', onAbort)
    drained.resolve()
    stdout.close()
    stderr.close()
  }
  const fail = (why: unknown): void => (close(), settled.reject(why))
  const onAbort = (): void => {
    command.signal(GUEST_SIGNALS.SIGKILL)
    settled.reject(signal!.reason)
  }
  signal?.throwIfAborted()
  const environment = Object.entries(env).map(([name, value]) => `${name}=${value}`)
  const asked: AgentCommand = { words, environment, ...(terminal ? { terminal } : {}) }
  const command: GuestCommand = agent.client.start(asked, {
    output: (bytes, done) => stdout.add(bytes, done),
    errors: (bytes, done) => stderr.add(bytes, done),
    drained: () => drained.resolve(),
    ended: (status) => (close(), settled.resolve(status)),
    ...{ refused: fail, lost: fail },
  })
  signal?.addEventListener('abort', onAbort)
  const encoder = new TextEncoder()
  return {
    stdin: new WritableStream({
      async write(chunk) {
        // It is read no more.
        if (isOver || command.write(typeof chunk === 'string' ? encoder.encode(chunk) : chunk)) return
        drained = Promise.withResolvers()
        await drained.promise
      },
      close: () => command.end(),
      abort: () => command.end(),
    }),
    stdout: stdout.stream,
    stderr: stderr.stream,
    status: settled.promise,
    kill: (name = 'SIGTERM') => command.signal(GUEST_SIGNALS[name]),
    resize: (size) => command.resize(size),
  }
}

export interface ExecOptions extends SpawnOptions {
  /** Standard input; none if left out. */
  readonly input?: Uint8Array | string
}

/** What a command gave. */
export interface ExecResult {
  /** 128 + N after signal N. */
  readonly status: number
  readonly stdout: string
  readonly stderr: string
  /** Standard output as it came. */
  readonly bytes: Uint8Array
}

export async function execIn(process: GuestProcess, { input }: ExecOptions): Promise<ExecResult> {
  const writer = process.stdin.getWriter()
  const feed = async (): Promise<void> => {
    if (input !== undefined && input.length > 0) await writer.write(input)
    await writer.close()
  }
  const [bytes, errors, status] = await Promise.all([collect(process.stdout), collect(process.stderr), process.status, feed()])
  return { status, stdout: bytes.toString(), stderr: errors.toString(), bytes }
}

async function collect(stream: ReadableStream<Uint8Array>): Promise<Buffer> {
  const chunks: Uint8Array[] = []
  for await (const chunk of stream) chunks.push(chunk)
  return Buffer.concat(chunks)
}

export const noAgent = (name: string, why: string): NonrootError =>
  new NonrootError({
    code: 'usage',
    message: `${name} has no agent in its guest: ${why}`,
    thing: 'agent',
    remedy: 'use an image that nonroot makes and a stack with virtio, or the console',
  })
