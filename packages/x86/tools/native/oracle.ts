/** The native oracle itself: makes batches of cases, runs ours, compares, counts. Where the native answers come from is the caller's business. */
import type { Row } from '../../src/rows/index.ts'
import { Random } from '../float/operands.ts'
import { addressOf, Batch, STATE } from './batch.ts'
import { describe, differences } from './compare.ts'
import { encode, type Encoded } from './encode.ts'
import { Machine } from './machine.ts'
import { userRows } from './rules.ts'
import { minimise } from './minimise.ts'
import { fillState, usesOf } from './states.ts'

/** Instructions in a batch: their slots fill all but the last page of code. */
const INSTRUCTIONS = 512
/** States for each: enough to pay for the instruction's decoding, few enough that encodings vary. */
const EACH = 24

export interface OracleOptions {
  readonly codeSize: 32 | 64
  readonly seed: number
  /** Only rows whose mnemonic and operands match. */
  readonly rows: RegExp
  /** CPUID features that the host does not have. */
  readonly lacks?: ReadonlySet<string>
  /** How many differences of a row are shown in full. */
  readonly show: number
  /** Runs a batch natively, to make a difference plainer. Absent: it is shown as it came. */
  readonly runNatively?: (batch: Batch) => void
}

export interface Count {
  cases: number
  /** That ended in an exception. */
  faults: number
  different: number
}

export class Oracle {
  readonly rows: readonly Row[]
  /** Initial states, and the processor's final ones. */
  readonly native: Batch
  readonly counts = new Map<string, Count>()
  total = 0
  different = 0
  /** Cases that differed once, and not when they were run again. */
  unrepeated = 0
  readonly machine: Machine
  readonly #ours: Batch
  readonly #options: OracleOptions
  readonly #random: Random
  #nextRow = 0
  /** The batch's instructions; undefined where a recorded one no longer applies. */
  encoded: (Encoded | undefined)[] = []
  /** What the states of each instruction were made from. */
  readonly seeds = new Uint32Array(INSTRUCTIONS)

  constructor(options: OracleOptions) {
    const { codeSize } = options
    this.#options = options
    this.#random = new Random(options.seed)
    this.rows = userRows(codeSize).filter(
      ({ mnemonic, operandText, attributes }) => options.rows.test(`${mnemonic} ${operandText}`) && !options.lacks?.has(attributes.cpuid ?? ''),
    )
    if (!this.rows.length) throw new Error(`no user-mode row matches ${options.rows}`)
    this.native = new Batch(INSTRUCTIONS, EACH, codeSize)
    this.#ours = new Batch(INSTRUCTIONS, EACH, codeSize)
    this.machine = new Machine(codeSize)
  }

  /** The next batch: random encodings of the rows in turn, each with its states. */
  generate(): void {
    for (let n = 0; n < this.native.instructions; n++) this.place(n, this.#encode(n), this.#random.u32())
  }
  /** Makes an instruction the batch's `n`th, with states from a seed of their own. */
  place(n: number, one: Encoded | undefined, seed: number): void {
    const { native } = this
    this.encoded[n] = one
    this.seeds[n] = seed
    if (!one) return
    native.setInstruction(n, one.code, usesOf(one.row))
    const random = new Random(seed)
    native.clear(n)
    for (let m = 0; m < native.each; m++) fillState(random, native, one, native.inputOf(n, m))
  }
  #encode(n: number): Encoded {
    const { rows } = this
    for (let tries = 1; tries < 100 * rows.length; tries++) {
      const one = encode(this.#random, rows[this.#nextRow]!, addressOf(n), this.#options.codeSize)
      if (one || tries % 100 === 0) this.#nextRow = (this.#nextRow + 1) % rows.length
      if (one) return one
    }
    throw new Error('none of the rows can be encoded')
  }

  /** Runs the batch on our side and compares it with `native`'s final states. */
  judge(): void {
    const { native } = this
    this.encoded.forEach((one, n) => {
      if (!one) return
      this.machine.run(native, n, one.address, this.#ours)
      const name = `${one.row.mnemonic} ${one.row.operandText}`.trim()
      const count = this.counts.get(name) ?? { cases: 0, faults: 0, different: 0 }
      this.counts.set(name, count)
      for (let m = 0; m < native.each; m++) this.#compare(one, n, m, count)
      this.total += native.each
    })
  }
  #compare(one: Encoded, n: number, m: number, count: Count): void {
    const { native } = this
    const ours = this.#ours
    const input = native.inputOf(n, m), output = native.outputOf(n, m), flags = native.flagsOf(n)
    count.cases++
    if (native.u32[(output + STATE.vector) >>> 2] !== 0xffff_ffff) count.faults++
    if (!differences(one, native, ours, input, output, flags, false).length) return
    const { codeSize, runNatively, show } = this.#options
    const asItCame = describe(one, native, ours, input, output, differences(one, native, ours, input, output, flags, true))
    const state = native.bytes.slice(input, input + STATE.size)
    const least = runNatively ? minimise(one, n, state, flags, codeSize, this.machine, runNatively) : asItCame
    if (least === undefined) {
      this.unrepeated++
      console.log(`did not repeat:\n${asItCame}\n`)
      return
    }
    count.different++
    this.different++
    if (count.different <= show) console.log(`${least}\n`)
  }
}
