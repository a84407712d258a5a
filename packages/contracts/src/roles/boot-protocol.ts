/** Boot protocols: place a guest in memory and define the registers at its first instruction. */

import type { GuestMemory } from '../memory/guest-memory.ts'
import type { PlatformDescription } from './io-model.ts'
import type { ParavirtualMachine } from '../paravirtual/start-of-day.ts'
import type { Log } from '../base/log.ts'
import { token } from '../base/token.ts'
import type { Token } from '../base/token.ts'
import type { VcpuStatus } from './cpu-mode.ts'

export interface BootModule<Content> {
  readonly content: Content
  readonly cmdline: string
}

/** A file of an image, read directly to its destination, so that a kernel is not in memory twice. Readable as long as the VM exists. */
export interface BootFile {
  readonly length: number
  /** A copy of a part. Throws if the file became shorter. */
  read(at: number, length: number): Uint8Array
  /** Fills the views in order with the file's bytes from `at`, then calls `done`, at once or later, but before the guest runs. */
  readInto(at: number, views: readonly Uint8Array[], done: () => void): void
}
export type BootContent = Uint8Array | BootFile

/** The whole content. Bytes are returned unchanged. */
export const bytesOf = (content: BootContent): Uint8Array =>
  content instanceof Uint8Array ? content : content.read(0, content.length)

/** A guest image: with file names (`string`) in the configuration, then with the files that the kernel opened. */
export interface BootImage<Content = BootContent> {
  readonly kernel?: Content
  readonly initrd?: Content
  readonly firmware?: Content
  readonly modules?: readonly BootModule<Content>[]
  readonly cmdline?: string
}

/** The machine as a boot protocol sees it. */
export interface BootMachine {
  readonly guestMemory: GuestMemory
  readonly vcpuCount: number
  /** Merged from the stack's I/O models: for ACPI tables and command lines. Read it when it is needed: firmware changes parts of it. */
  readonly platform: PlatformDescription
  /** A capability that an I/O model of the stack offers (`FirmwareConfiguration`). Undefined: none does. */
  capability<T>(of: Token<T>): T | undefined
  readonly log: Log
  /** The guest's kernel runs deprivileged. */
  readonly paravirtual?: ParavirtualMachine | undefined
}

/** The first state of the bootstrap processor, applied on top of its power-up state. The others wait to be started. */
export interface BootState<State extends VcpuStatus = VcpuStatus> {
  readonly registers: Partial<State>
  /** What was placed where, for `info` and errors: `kernel 0x1000000..0x2a00000`. */
  readonly placed: readonly { readonly what: string; readonly start: number; readonly length: number }[]
}

/**
 * Stateless. Called at each boot and after each reset, with memory zeroed or as it was before the reset. A bad image throws `boot.image` that names
 * what is wrong with it; too little memory throws `boot.memory` with how much is needed.
 */
export interface BootProtocol<State extends VcpuStatus = VcpuStatus> {
  load(image: BootImage, machine: BootMachine): BootState<State>
}
export const BootProtocol = token<BootProtocol>('BootProtocol')
