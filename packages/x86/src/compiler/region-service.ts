/**
 * Requests for regions and their results: plain data and a compiled module, so that another thread can do the work (compile-thread.ts). Results
 * contain no addresses; these are in the entry record of the block that a region replaces.
 */
import type { Row } from '../rows/index.ts'
import { type FunctionCode, functionCode, linkedModule } from '../backend/function-module.ts'
import type { Built, ModuleContext } from '../ir/function.ts'
import type { CompiledRegion } from '../code/compiled-region.ts'
import { buildRegion, type BuiltRegion } from './build-region.ts'

export interface RegionRequest {
  /** The page that the code is on. */
  readonly bytes: Uint8Array
  /** Offset of the block that became hot. */
  readonly entry: number
  readonly mode: number
  /** Entry offsets of existing regions. Jumps to them are linked; their code is not duplicated. */
  readonly entries: readonly number[]
  /** Possible targets of indirect jumps: included if the region has such jumps. */
  readonly targets: readonly number[]
  /** Ids of rows whose instructions call a hook before they run, which the interpreter does. */
  readonly trapped: readonly number[]
}

/** A region before it is in a module. */
export interface RegionCode {
  readonly region: CompiledRegion
  readonly code: FunctionCode
}

export interface RegionModule {
  /** Its exports are numbered, one for each region that was built, in order. Undefined if there is none. */
  readonly module: WebAssembly.Module | undefined
  readonly bytes: number
  /** The time it took. */
  readonly milliseconds: number
  /** By request. Undefined: the first instruction cannot be compiled. */
  readonly regions: readonly (RegionCode | undefined)[]
}

export interface RegionService {
  /** The guest is running: there will be something to compile. Called after every slice. */
  prepare?(): void
  /** Calls back at once or later, never while guest code runs. */
  compile(requests: readonly RegionRequest[], context: ModuleContext, done: (result: RegionModule) => void): void
}

/** Compiles on the caller's thread, at once. `inspect` sees the code of each region: for tests. */
export function createRegionCompiler(inspect?: (code: Built) => void): RegionService {
  /** Rows whose semantics were found not to compile. */
  const refused = new Set<Row>()
  return { compile: (requests, context, done) => done(compileRegions(requests, context, refused, inspect)) }
}

function compileRegions(requests: readonly RegionRequest[], context: ModuleContext, refused: Set<Row>, inspect?: (code: Built) => void): RegionModule {
  const started = performance.now()
  const regions = requests.map(({ bytes, entry, mode, entries, targets, trapped }) => {
    const built = buildRegion({ bytes, page: 0, mode, refused, isEntry: (ip) => entries.includes(ip), targets, trapped }, entry)
    if (!built) return undefined
    inspect?.(built.body)
    return { region: summary(built), code: functionCode(built.body) }
  })
  return moduleOf(regions, context, started)
}

/** The module of these regions; `started`: since when time is counted, as `performance.now()` gives it. */
export function moduleOf(regions: RegionModule['regions'], context: ModuleContext, started = performance.now()): RegionModule {
  const codes = regions.filter((region) => region !== undefined).map(({ code }) => code)
  const bytes = codes.length ? linkedModule(codes, context) : undefined
  const module = bytes && new WebAssembly.Module(bytes)
  return { module, bytes: bytes?.length ?? 0, regions, milliseconds: performance.now() - started }
}

function summary({ region, body }: BuiltRegion): CompiledRegion {
  return {
    extents: [...region.byStart.values()].map(({ start, end }) => ({ start, end })),
    exits: body.exits,
    usesTargets: body.usesTargets,
    instructions: region.blocks.reduce((sum, { instructions }) => sum + instructions.length, 0),
  }
}
