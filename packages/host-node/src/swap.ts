/** A swap file, and the compression of pages. */

import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { closeSync, constants, fstatSync, openSync, read, readSync, rmSync, writeSync } from 'node:fs'
import { promisify } from 'node:util'
import zlib from 'node:zlib'
import { formatSize, FRAME_SIZE, NonrootError } from '@nonroot/contracts'
import type { SwapBackend, SwapFile } from '@nonroot/contracts'

const readAt = promisify(read)
/** The file begins with a page that says what it is and whose. A page follows the other, each with its checksum. */
const MAGIC = 'nonroot swap file of process '
const TAG = 16
const STRIDE = FRAME_SIZE + TAG
/** Of AES-GCM: the page's number and which write of this run it is. A nonce is never used twice with one key. */
const NONCE = 12
/** Pages of an aligned group are read at once: a guest often needs the next one, too, and each wait costs more than the reading. */
const GROUP = 16
const WINDOWS = 8
/** Of 512 bytes of a page, random ones have 221 different values, programs and text up to 160. */
const SAMPLE_STRIDE = 8
const RANDOM = 200

export function openSwap(path: string | undefined, size = 2 ** 30): SwapBackend {
  const opened = path === undefined ? undefined : new EncryptedFile(path, size)
  return {
    compress: (page) => (looksRandom(page) ? page : zlib.zstdCompressSync(page)),
    expand(packed, into) {
      const page = zlib.zstdDecompressSync(packed)
      if (page.length !== into.length) throw new Error(`a compressed page has ${page.length} bytes`)
      into.set(page)
    },
    ...(opened ? { file: opened } : {}),
    close: () => opened?.close(),
  }
}

const seen = new Uint8Array(256)

/** Half of the cost of swapping out is to find that encrypted or compressed data do not get smaller: they have nearly all bytes in equal numbers. */
function looksRandom(page: Uint8Array): boolean {
  seen.fill(0)
  for (let at = 0; at < page.length; at += SAMPLE_STRIDE) seen[page[at]!] = 1
  let distinct = 0
  for (let byte = 0; byte < 256; byte++) distinct += seen[byte]!
  return distinct >= RANDOM
}

/** Pages that were read with one that a vCPU needed, still encrypted. */
interface Window {
  readonly first: number
  /** The writes that they have. */
  readonly writes: Uint32Array
  readonly bytes: Uint8Array
}

class EncryptedFile implements SwapFile {
  readonly pages: number
  readonly #path: string
  readonly #file: number
  readonly #key = randomBytes(32)
  /** For each page, the number of the write that it has; 0: none. */
  readonly #writes: Uint32Array
  #lastWrite = 0
  readonly #buffer = Buffer.alloc(STRIDE)
  readonly #windows: Window[] = []
  #nextWindow = 0
  #isOpen = true

  constructor(path: string, size: number) {
    this.#path = path
    this.pages = Math.floor(size / FRAME_SIZE)
    this.#writes = new Uint32Array(this.pages)
    this.#file = openOwn(path)
    inUse.add(path)
  }

  write(page: number, from: Uint8Array): void {
    if (this.#lastWrite === 0xffff_ffff) throw new Error('its key has encrypted 2^32 pages; restart to get another')
    // Counted before it is tried: what failed halfway may have used the nonce.
    const write = ++this.#lastWrite
    const cipher = createCipheriv('aes-256-gcm', this.#key, nonceOf(page, write))
    this.#buffer.set(cipher.update(from))
    cipher.final()
    this.#buffer.set(cipher.getAuthTag(), FRAME_SIZE)
    // What was there before is no longer valid, also if this fails.
    this.#writes[page] = 0
    const written = writeSync(this.#file, this.#buffer, 0, STRIDE, positionOf(page))
    if (written !== STRIDE) throw new Error(`the host took ${written} of ${STRIDE} bytes`)
    this.#writes[page] = write
  }

  readNow(page: number, into: Uint8Array): void {
    const near = this.#near(page)
    if (near) return into.set(near)
    const buffer = Buffer.alloc(STRIDE)
    const length = readSync(this.#file, buffer, 0, STRIDE, positionOf(page))
    into.set(this.#decrypt(page, this.#writes[page]!, buffer.subarray(0, length)))
  }

  async read(page: number): Promise<Uint8Array> {
    const near = this.#near(page)
    if (near) return near
    let [first, end] = [page - (page % GROUP), Math.min(page - (page % GROUP) + GROUP, this.pages)]
    while (this.#writes[first] === 0 && first < page) first++
    while (this.#writes[end - 1] === 0 && end > page + 1) end--
    // The pages may be freed and written again meanwhile: then what arrives fits no longer.
    const writes = this.#writes.slice(first, end)
    const all = Buffer.alloc((end - first) * STRIDE)
    const { bytesRead } = await readAt(this.#file, all, 0, all.length, positionOf(first))
    const window = { first, writes, bytes: all.subarray(0, bytesRead) }
    const content = this.#decrypt(page, writes[page - first]!, bytesOf(window, page))
    this.#windows[this.#nextWindow++ % WINDOWS] = window
    return content
  }

  isNear(page: number): boolean {
    return this.#windowOf(page) !== undefined
  }
  #near(page: number): Uint8Array | undefined {
    const window = this.#windowOf(page)
    return window && this.#decrypt(page, this.#writes[page]!, bytesOf(window, page))
  }
  /** Where the page's last write was read ahead. */
  #windowOf(page: number): Window | undefined {
    const write = this.#writes[page]!
    return write === 0 ? undefined : this.#windows.find(({ first, writes }) => writes[page - first] === write)
  }

  #decrypt(page: number, write: number, bytes: Uint8Array): Uint8Array {
    if (bytes.length < STRIDE)
      throw new Error(`the swap file ${this.#path} is too short: page ${page} has ${bytes.length} of ${STRIDE} bytes`)
    const decipher = createDecipheriv('aes-256-gcm', this.#key, nonceOf(page, write))
    decipher.setAuthTag(bytes.subarray(FRAME_SIZE))
    const content = decipher.update(bytes.subarray(0, FRAME_SIZE))
    try {
      decipher.final()
    } catch {
      throw new Error(`the swap file ${this.#path} is damaged: page ${page} does not match its checksum`)
    }
    return content
  }

  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    inUse.delete(this.#path)
    closeSync(this.#file)
    rmSync(this.#path, { force: true })
  }
}

/** Paths that this process uses. Who has this process's number, but is not here, has ended. */
const inUse = new Set<string>()

const bytesOf = ({ first, bytes }: Window, page: number): Uint8Array =>
  bytes.subarray((page - first) * STRIDE, (page - first + 1) * STRIDE)

const positionOf = (page: number): number => FRAME_SIZE + page * STRIDE

function nonceOf(page: number, write: number): Buffer {
  const nonce = Buffer.alloc(NONCE)
  nonce.writeUInt32LE(page, 0)
  nonce.writeUInt32LE(write, 4)
  return nonce
}

/** Creates the file, or takes over one that another run has left. Anything else at that path is refused. */
function openOwn(path: string): number {
  let file: number
  try {
    file = openSync(path, constants.O_RDWR | constants.O_CREAT | constants.O_NOFOLLOW, 0o600)
  } catch (error) {
    throw unusable(path, (error as Error).message, 'name a file in a folder that exists and can be written')
  }
  try {
    const status = fstatSync(file)
    if (!status.isFile()) throw unusable(path, 'it is no regular file', 'name a file')
    const head = Buffer.alloc(64)
    const text = head.toString('latin1', 0, readSync(file, head, 0, head.length, 0))
    if (status.size > 0 && !text.startsWith(MAGIC))
      throw unusable(
        path,
        `it has ${formatSize(status.size)} of something else`,
        'name a file that does not exist; it is not overwritten',
      )
    const owner = Number.parseInt(text.slice(MAGIC.length), 10)
    if (owner === process.pid ? inUse.has(path) : isRunning(owner))
      throw unusable(path, `process ${owner} uses it`, 'give each run a swap file of its own')
    writeSync(file, `${MAGIC}${process.pid}\n`.padEnd(64, '\0'), 0)
    return file
  } catch (error) {
    closeSync(file)
    throw error
  }
}

function isRunning(process_: number): boolean {
  if (!(process_ > 0)) return false
  try {
    process.kill(process_, 0)
    return true
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'EPERM'
  }
}

const unusable = (path: string, why: string, remedy: string): NonrootError =>
  new NonrootError({
    code: 'host.swap',
    message: `the swap file ${path} cannot be used: ${why}`,
    thing: 'swap.file',
    value: path,
    remedy,
  })
