/** V8 as guest code wants it. */

import { setFlagsFromString } from 'node:v8'

/**
 * Call before the first WebAssembly is compiled, and as late as that: V8 keeps compiled JavaScript by its flags, so that what comes after,
 * Node's own modules too, is compiled from its source. They are the process's, not a thread's. A V8 that does not know one goes on without it.
 */
export function tuneWasm(): void {
  for (const flag of [
    // Generated code is entered for short stretches, so V8 sees little of what is hot: it optimises sooner. Not too soon: optimising takes eight times
    // what the baseline does, on processors that the guest runs on as well (docs/performance.md).
    '--wasm-tiering-budget=2000000',
    // What regions say is rare moves out of the way. (WebAssembly Branch Hinting)
    '--experimental-wasm-branch-hinting',
    // A region is compiled where it is made, not on the vCPU's thread when it is first entered; the interpreter's handlers ask to be.
    '--no-wasm-lazy-compilation',
    '--experimental-wasm-compilation-hints',
    // Code that a guest runs calls nothing that calls itself, and is back after each slice.
    '--no-wasm-stack-checks',
    // What is called from rare places only is to stay a call. Not --no-wasm-inlining: code that runs already (Node's own, which takes the types
    // out of sources) counts its calls for the inliner, and V8 crashes where it is optimised without one.
    '--wasm-inlining-max-size=0',
  ])
    setFlagsFromString(flag)
}
