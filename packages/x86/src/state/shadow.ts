/**
 * The interrupt shadow: STI, MOV SS and POP SS block interrupts until the next instruction is done. It is part of the mode key, so that this
 * instruction has a separate block and no other code needs to check for a shadow. (SDM Vol. 3A, "Masking Maskable Hardware Interrupts", "Masking
 * Exceptions and Interrupts When Switching Stacks")
 */
import type { Core } from './core.ts'
import { S } from './layout.ts'
import { MODE } from './mode.ts'

/** Values of the `shadow` slot. */
export const SHADOW = { none: 0, sti: 1, movSs: 2 } as const
export type Shadow = (typeof SHADOW)[keyof typeof SHADOW]

/** Starts or ends the shadow of the next instruction. */
export function setShadow(core: Core, shadow: Shadow): void {
  const mode = core.get32(S.mode)
  core.set32(S.shadow, shadow)
  core.set32(S.mode, shadow ? mode | MODE.shadow : mode & ~MODE.shadow)
}

/** The shadow of the next instruction, or of the running one if the run loop single-steps it. */
export const shadowOf = (core: Core): Shadow => (core.get32(S.shadow) || core.covered) as Shadow
