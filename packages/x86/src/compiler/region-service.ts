/**
 * Regions as they are asked for and as they come back: plain data and a compiled module, so that the work may be done on another thread
 * (compile-thread.ts). What comes back holds no address: the entry record of the block it stands in for has them.
 */
import type { Row } from '../rows/index.ts'
import { exportedModule } from '../backend/function-module.ts'
import type { Built, ModuleContext } from '../ir/function.ts'
import type { CompiledRegion } from '../code/compiled-region.ts'
import { buildRegion, type BuiltRegion } from './build-region.ts'

export interface RegionRequest {
  /** The page that the code is on. */
  readonly bytes: Uint8Array
  /** Offset of the block that became hot. */
  readonly entry: number
  readonly mode: number
  /** Offsets at which other regions begin: they are gone to, not compiled once more. */
  readonly entries: readonly number[]
  /** Offsets at which computed jumps may arrive: taken in where the region has such jumps. */
  readonly targets: readonly number[]
  /** Ids of rows that the hooks are asked about before they run: the interpreter does so. */
  readonly trapped: readonly number[]
}

export interface RegionModule {
  /** Its exports are numbered: one for each region that is there, in order. Undefined: there is none. */
  readonly module: WebAssembly.Module | undefined
  readonly bytes: number
  /** What it took. */
  readonly milliseconds: number
  /** By request. Undefined: even its first instruction is not for compiled code. */
  readonly regions: readonly (CompiledRegion | undefined)[]
}

export interface RegionService {
  /** The guest runs: there will be something to compile. Called after every slice. */
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
  const built = requests.map(({ bytes, entry, mode, entries, targets, trapped }) =>
    buildRegion({ bytes, page: 0, mode, refused, isEntry: (ip) => entries.includes(ip), targets, trapped }, entry),
  )
  const there = built.filter((one) => one !== undefined)
  if (inspect) for (const { body } of there) inspect(body)
  const bytes = there.length ? exportedModule(there.map(({ body }) => body), context) : undefined
  return {
    module: bytes && new WebAssembly.Module(bytes),
    bytes: bytes?.length ?? 0,
    regions: built.map((one) => one && summary(one)),
    milliseconds: performance.now() - started,
  }
}

function summary({ region, body }: BuiltRegion): CompiledRegion {
  return {
    extents: [...region.byStart.values()].map(({ start, end }) => ({ start, end })),
    waysOut: body.waysOut,
    usesTargets: body.usesTargets,
    instructions: region.blocks.reduce((sum, { instructions }) => sum + instructions.length, 0),
  }
}
