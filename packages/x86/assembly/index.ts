/** The library's exports. Built by tools/build-float.ts into src/float/module.ts. */
export * from './sse'
export { reciprocal32 as f32_reciprocal, reciprocalRoot32 as f32_reciprocal_root } from './lane'
export * from './x87-arithmetic'
export * from './x87-transfer'
export * from './x87-compare'
export * from './x87-transcendental'
export * from './text'
