/** The functions in TypeScript that handlers and regions call. */
import { floatImports } from './float/imports.ts'
import type { HandlerImport } from './interpreter/handlers.ts'
import { slowModify, slowRead, slowWrite } from './paging/index.ts'
import { GuestFault, type Core } from './state/core.ts'
import { checkSegment } from './state/segments.ts'
import { system } from './system/index.ts'

type Access = (core: Core, info: number) => number

export function handlerImports(core: Core): Record<string, HandlerImport> {
  const slow = (access: Access): HandlerImport => ({
    params: ['i32', 'i32'],
    results: ['i32'],
    function: (_cpu: number, info: number) => {
      try {
        return access(core, info)
      } catch (fault) {
        // The bus stalled (STALLED).
        if (!(fault instanceof GuestFault)) throw fault
        core.compiled = false
        core.raise(fault.vector, fault.errorCode)
        return 1
      }
    },
  })
  return {
    slowRead: slow(slowRead),
    slowWrite: slow(slowWrite),
    slowModify: slow(slowModify),
    checkSegment: slow(checkSegment),
    slowReadOfCompiled: slow((c, info) => fromCompiled(c, slowRead, info)),
    slowWriteOfCompiled: slow((c, info) => fromCompiled(c, slowWrite, info)),
    slowModifyOfCompiled: slow((c, info) => fromCompiled(c, slowModify, info)),
    system: {
      params: ['i32', 'i32', 'i32'],
      results: ['i32'],
      function: (_cpu: number, record: number, id: number) => system(core, record, id),
    },
    ...floatImports(core.memory.memory),
  }
}

/** An access of compiled code. A write must not change code, perhaps its own, so such a write is left to the interpreter. */
function fromCompiled(core: Core, access: Access, info: number): number {
  core.compiled = true
  const left = access(core, info)
  core.compiled = false
  return left
}
