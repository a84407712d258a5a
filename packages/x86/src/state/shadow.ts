/**
 * The interrupt shadow: what STI, MOV SS and POP SS hold off until the instruction behind them is done. It is part of the mode key, so that this one
 * instruction has a block of its own, and no other code looks for it. (SDM Vol. 3A, "Masking Maskable Hardware Interrupts", "Masking Exceptions and
 * Interrupts When Switching Stacks")
 */
import type { Core } from './core.ts'
import { S } from './layout.ts'
import { MODE } from './mode.ts'

/** Values of the `shadow` slot. */
export const SHADOW = { none: 0, sti: 1, movSs: 2 } as const
export type Shadow = (typeof SHADOW)[keyof typeof SHADOW]

/** Shields the next instruction, or ends that. */
export function setShadow(core: Core, shadow: Shadow): void {
  const mode = core.get32(S.mode)
  core.set32(S.shadow, shadow)
  core.set32(S.mode, shadow ? mode | MODE.shadow : mode & ~MODE.shadow)
}

/** That of the next instruction, or of the running one where it is the processor's loop that runs it. */
export const shadowOf = (core: Core): Shadow => (core.get32(S.shadow) || core.covered) as Shadow
