/** Paging strategies: the tables a hypervisor writes and the faults it handles. */
export { default } from './plugin.ts'
export { createEptPaging, EptPaging, type EptPagingContext, type EptPagingOptions } from './ept/strategy.ts'
export { createShadowPaging, ShadowPaging, type ShadowPagingOptions } from './shadow/strategy.ts'
