/** Paging hardware: walker, second stage, TLB, and the slow paths of memory accesses. */
export * from './access/fetch.ts'
export * from './access/slow-path.ts'
export * from '../state/paging-state.ts'
export * from './tlb/tlb.ts'
export { loadContext } from './tlb/contexts.ts'
export { loadPdptes } from './pae.ts'
export { updatePaging, walk } from './walk.ts'
