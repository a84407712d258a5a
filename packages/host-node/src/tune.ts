/** V8 as guest code wants it. */

import { setFlagsFromString } from 'node:v8'

/**
 * Call before the first WebAssembly is compiled, and as late as that: V8 keeps compiled JavaScript by its flags, so that what comes after,
 * Node's own modules too, is compiled from its source. Generated code is entered for short stretches, so V8 sees little of what is hot: the budget after which it
 * optimises a function is lowered. It is the process's, not a thread's.
 */
export function tuneWasm(): void {
  setFlagsFromString('--wasm-tiering-budget=200000')
}
