/** A processor and the world around it, run until an exception or anything else ends the run. */
import type { Core } from '../../src/state/core.ts'
import { createRegionCompiler } from '../../src/compiler/region-service.ts'
import { Processor, type StopReason } from '../../src/processor.ts'
import { EXIT, S } from '../../src/state/layout.ts'
import { PROCEED, SECOND_STAGE, type Hooks } from '../../src/state/hooks.ts'
import { verifyRegion } from './verify-region.ts'
import { Surroundings, World } from './world.ts'

const FRAMES = 12288
const CODE_CACHE = 16 << 20

/** How a run came to its end. */
export interface Stop {
  reason: StopReason | 'endless'
  /** Exception, triple fault or task switch that ended it. */
  event: string
  retired: number
}

/** A processor in a world of its own. */
export class Side {
  readonly surroundings = new Surroundings(FRAMES)
  readonly processor: Processor
  readonly world: World
  readonly #most: number
  #event = ''

  /** `most`: a run of more instructions has no end. */
  constructor(compile: boolean, most: number) {
    this.#most = most
    this.processor = new Processor(this.surroundings, { codeCache: CODE_CACHE, compile, regions: createRegionCompiler(verifyRegion) })
    if (compile) this.processor.blocks.hotness = 2
    // As a device's line would: where slices end must not show.
    this.surroundings.onAccess = () => this.processor.yield()
    const { core } = this.processor
    this.world = new World(core, this.surroundings)
    core.hooks = this.#hooks(core)
  }

  /** Every exception ends the run. */
  #hooks(core: Core): Hooks {
    const stop = (event: string) => {
      this.#event = event
      core.set32(S.exit, EXIT.stop)
    }
    return {
      intercept: () => PROCEED,
      exception: (vector, errorCode) => {
        // INT3, INTO and INT1 ask from within, when the RIP slot is not theirs yet; single steps cannot be told from INT1.
        if (vector === 3 || vector === 4) core.set64(S.rip, core.recordRip())
        else if (vector === 1) core.set64(S.rip, 0n)
        const details = vector === 14 ? ` at ${address(core)}` : vector === 1 ? ` of ${core.pendingDebug.toString(16)}` : ''
        stop(`exception ${vector}(${errorCode.toString(16)})${details}`)
        return true
      },
      secondStageViolation: () => SECOND_STAGE.retry,
      secondStageMisconfiguration: () => SECOND_STAGE.retry,
      taskSwitch: (selector) => {
        stop(`task switch to ${selector.toString(16)}`)
        return 1
      },
      tripleFault: () => stop('triple fault'),
    }
  }

  /** Runs until something ends it. `slice`: instructions between two looks at what waits. */
  run(slice: number): Stop {
    const { processor } = this
    this.#event = ''
    const from = processor.retired
    for (let before = from; ; ) {
      let reason = processor.run(slice)
      // A slice shorter than the block that comes next gets nowhere.
      if (reason === 'budget' && processor.retired === before) reason = processor.step() ?? 'budget'
      before = processor.retired
      processor.compiler.flush()
      const retired = before - from
      if (reason !== 'budget' && reason !== 'attention') return { reason, event: this.#event, retired }
      if (retired > this.#most) return { reason: 'endless', event: '', retired }
    }
  }
}

const address = (core: Core): string => ((BigInt(core.paging.faultHigh >>> 0) << 32n) | BigInt(core.paging.faultLow >>> 0)).toString(16)

export const show = ({ reason, event }: Stop): string => (event ? `${reason}, ${event}` : reason)
export const hex = (value: bigint | number): string => `0x${value.toString(16)}`
