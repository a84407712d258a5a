/** The interpreter's handlers, as the code cache and the compiler see them. Implemented by interpreter/handlers.ts. */
import type { Instruction } from '../decode/instruction.ts'
import type { ModuleContext } from '../ir/function.ts'

/** Handlers that belong to no row. */
export type Special = 'enterBlock' | 'goOn' | 'undefinedOpcode' | 'generalProtection' | 'stale' | 'underShadow' | 'alone' | 'endShadow' | 'checkNextPage' | 'fpuUnavailable' | 'trapped'

export interface HandlerTable {
  /** The context for which modules of code are made. Plain data that can be sent to another thread. */
  readonly moduleContext: ModuleContext
  /** Table index for an instruction in a mode; the handler exists after the next `flush`. */
  of(instruction: Instruction, mode: number, flagsDead: boolean): number
  special(name: Special): number
  /** Compiles the handlers requested since the last call. */
  flush(): void
  /** Puts a module's exports, named by number, into the table. */
  install(module: WebAssembly.Module, count: number): number[]
  /** The compiled function at this index is no longer entered; its index may be reused. */
  release(index: number): void
}
