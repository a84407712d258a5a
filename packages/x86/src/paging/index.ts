/** Paging hardware: walker, second stage, TLB, and the slow paths of memory accesses. */
export * from './fetch.ts'
export * from './slow-path.ts'
export * from './paging-state.ts'
export * from './tlb.ts'
export { loadPdptes } from './pae.ts'
export { updatePaging, walk } from './walk.ts'
