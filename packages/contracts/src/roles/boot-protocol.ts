/** How a guest gets into memory and what its registers are at its first instruction. */

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

/** A file of an image, read where it is wanted: a kernel need not be in memory twice. It can be read as long as the VM is there. */
export interface BootFile {
  readonly length: number
  /** A copy of a part. Throws where the file became shorter. */
  read(at: number, length: number): Uint8Array
  /**
   * Fills the views, one after the other, with what the file has from `at` on, then calls `done`. At once or later, beside other work, but before the
   * guest runs.
   */
  readInto(at: number, views: readonly Uint8Array[], done: () => void): void
}
export type BootContent = Uint8Array | BootFile

/** All of it. Bytes are given as they are. */
export const bytesOf = (content: BootContent): Uint8Array =>
  content instanceof Uint8Array ? content : content.read(0, content.length)

/** A guest image: with file names as the configuration has it (`string`), then with the files that the kernel opened for it. */
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
  /** Merged from the stack's I/O models: for ACPI tables and command lines. As it is when it is read: firmware moves some of it. */
  readonly platform: PlatformDescription
  /** A capability that an I/O model of the stack offers (`FirmwareConfiguration`). Undefined: none does. */
  capability<T>(of: Token<T>): T | undefined
  readonly log: Log
  /** The guest's kernel runs deprivileged. */
  readonly paravirtual?: ParavirtualMachine | undefined
}

/** The bootstrap processor's first state; it starts from power-up state with this put on top. The others wait to be started. */
export interface BootState<State extends VcpuStatus = VcpuStatus> {
  readonly registers: Partial<State>
  /** What was placed where, for `info` and for errors: `kernel 0x1000000..0x2a00000`. */
  readonly placed: readonly { readonly what: string; readonly start: number; readonly length: number }[]
}

/**
 * Stateless. Called once per boot (again after a reset) with memory zeroed or left from before the reset. A bad image throws
 * `boot.image` that names what is wrong with it; too little memory throws `boot.memory` with how much is needed.
 */
export interface BootProtocol<State extends VcpuStatus = VcpuStatus> {
  load(image: BootImage, machine: BootMachine): BootState<State>
}
export const BootProtocol = token<BootProtocol>('BootProtocol')
