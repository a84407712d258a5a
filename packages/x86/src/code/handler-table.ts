/** Whoever makes the interpreter's handlers, as the cache of decoded code and the compiler see it. Implemented by interpreter/handlers.ts. */
import type { Instruction } from '../decode/instruction.ts'
import type { ModuleContext } from '../ir/function.ts'

/** Handlers that belong to no row. */
export type Special = 'enterBlock' | 'goOn' | 'undefinedOpcode' | 'generalProtection' | 'stale' | 'underShadow' | 'alone' | 'endShadow' | 'checkNextPage' | 'fpuUnavailable' | 'trapped'

export interface HandlerTable {
  /** What modules of code are made against. Plain data: it may go to another thread. */
  readonly moduleContext: ModuleContext
  /** Table index for an instruction in a mode; the handler exists after the next `flush`. */
  of(instruction: Instruction, mode: number, flagsDead: boolean): number
  special(name: Special): number
  /** Compiles what was asked for since the last time. */
  flush(): void
  /** Puts a module's exports, named by number, into the table. */
  install(module: WebAssembly.Module, count: number): number[]
  /** The compiled function at this index is no longer entered; its place may be used again. */
  release(index: number): void
}
