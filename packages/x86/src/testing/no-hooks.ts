/** Hooks that take nothing: what tests build theirs on. */
import { PROCEED, SECOND_STAGE, type Hooks } from '../state/hooks.ts'

export const NO_HOOKS: Hooks = {
  intercept: () => PROCEED,
  exception: () => false,
  secondStageViolation: () => SECOND_STAGE.left,
  secondStageMisconfiguration: () => SECOND_STAGE.left,
  taskSwitch: () => {
    throw new Error('a task switch in a test that has none')
  },
  tripleFault: () => {},
}
