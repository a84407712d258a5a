/** Two processors that differ in one option, run on the same program from the same state, and compared. */
import type { Core } from '../../src/state/core.ts'
import { S } from '../../src/state/layout.ts'
import { Random } from '../float/operands.ts'
import { STATE } from './architectural.ts'
import { layOut, type Program } from './program.ts'
import { hex, show, Side, type Stop } from './side.ts'
import { randomState } from './state.ts'

/** A chunk that runs longer has no end. */
const MOST_INSTRUCTIONS = 30_000

export interface Mismatch {
  readonly pass: number
  readonly chunk: number
  readonly differences: readonly string[]
}

const PASSES = 4

export class Pair {
  readonly interpreter = new Side(false, MOST_INSTRUCTIONS)
  readonly compiled = new Side(true, MOST_INSTRUCTIONS)
  /** Instructions run on the interpreter's side. */
  instructions = 0
  /** Runs by how they ended. */
  readonly endings = new Map<string, number>()
  readonly #memory: Uint8Array

  constructor(seed: number) {
    const { start } = this.interpreter.world
    if (start !== this.compiled.world.start) throw new Error('the two worlds lie apart')
    this.interpreter.world.fill(new Random(seed))
    this.#memory = this.interpreter.world.bytes.slice()
  }
  get sides(): readonly Side[] {
    return [this.interpreter, this.compiled]
  }

  /** Runs a program: the same first state twice, so that its code gets hot, then others. Undefined: no difference. */
  run(program: Program): Mismatch | undefined {
    const { bytes, addresses } = layOut(program)
    for (const { world } of this.sides) {
      world.bytes.set(this.#memory)
      world.core.u8.set(bytes, world.host(program.start))
      world.noteAll()
    }
    for (let pass = 0; pass < PASSES; pass++) {
      for (const [n, first] of program.chunks.entries()) {
        const state = program.seed * 64 + n * 8 + (pass < 2 ? 0 : pass)
        const slice = pass === 0 ? 64 : pass === 3 ? 37 : 1000
        const stops = this.sides.map((side) => {
          side.surroundings.writes.length = 0
          const { world } = side
          world.enter(program.codeSize, program.user, program)
          randomState(new Random(state), world.core, program.codeSize, program.user)
          world.core.set64(S.rip, BigInt(addresses[first]! - (program.codeSize === 16 ? 0x40_0000 : 0)))
          return side.run(slice)
        }) as [Stop, Stop]
        this.instructions += stops[0].retired
        if (stops.some(({ reason }) => reason === 'endless')) {
          // Where it was cut off is not the same place on both sides.
          this.#count('endless')
          const first = Math.min(...stops.map(({ retired }) => retired))
          if (stops[0].reason !== stops[1].reason && first < MOST_INSTRUCTIONS / 2 && !this.#overwroteRepeat(program, bytes, addresses)) return { pass, chunk: n, differences: [`interpreter ${show(stops[0])}, compiler ${show(stops[1])}`] }
          return undefined
        }
        this.#count(stops[0].event.replace(/\(.*/, '') || stops[0].reason)
        const differences = this.#compare(stops)
        if (!differences.length) continue
        if (!this.#overwroteRepeat(program, bytes, addresses)) return { pass, chunk: n, differences }
        this.#count('repeat over itself')
        return undefined
      }
    }
    return undefined
  }

  /** A repeated string instruction that writes over itself goes on as it was, or is fetched anew: it depends on where slices end. */
  #overwroteRepeat(program: Program, bytes: Uint8Array, addresses: readonly number[]): boolean {
    return program.items.some((item, n) => {
      if (!item?.repeats) return false
      const at = addresses[n]! - program.start
      return this.sides.some(({ world }) => {
        const host = world.host(addresses[n]!)
        return item.bytes.some((_, i) => world.core.u8[host + i] !== bytes[at + i])
      })
    })
  }

  #count(ending: string): void {
    this.endings.set(ending, (this.endings.get(ending) ?? 0) + 1)
  }

  #compare(stops: readonly [Stop, Stop]): string[] {
    const [a, b] = this.sides.map((side) => side.processor.core) as [Core, Core]
    const differences: string[] = []
    const check = (name: string, x: unknown, y: unknown) => {
      if (x !== y) differences.push(`${name}: interpreter ${String(x)}, compiler ${String(y)}`)
    }
    check('end', show(stops[0]), show(stops[1]))
    check('retired', stops[0].retired, stops[1].retired)
    for (const { name, read } of STATE) {
      const x = read(a), y = read(b)
      if (x !== y) check(name, hex(x), hex(y))
    }
    const [left, right] = this.sides.map(({ world }) => world.bytes) as [Uint8Array, Uint8Array]
    if (Buffer.compare(left, right) !== 0) {
      const at = left.findIndex((byte, n) => byte !== right[n])
      check(`memory at +0x${at.toString(16)}`, left[at], right[at])
    }
    check('devices', JSON.stringify(this.interpreter.surroundings.writes), JSON.stringify(this.compiled.surroundings.writes))
    return differences
  }
}
