/** The software processor on which CPU modes are built. Independent of any hypervisor. */
export { Processor, type ProcessorOptions, type StopReason } from './processor.ts'
export { createTiers, type TierOptions, type Tiers } from './tiers.ts'
export { createThreadedRegionService, type ThreadedRegionService } from './compiler/compile-thread.ts'
export { buildPrebuilt, exampleLine, PREBUILT_HANDLERS, readPrebuilt } from './interpreter/prebuilt.ts'
export type { PrebuiltHandlers } from './interpreter/handlers.ts'
export type { HandlerBuilder } from './interpreter/handler-builder.ts'
export type { Value } from './ir/nodes.ts'
export { pageOfLastByte, tlbEntry, tlbHost, tlbTag } from './paging/tlb/entry.ts'
export { createRegionCompiler, type RegionService } from './compiler/region-service.ts'
export { DUMP_MODES, dumpCode, type CodeDump } from './report/dump.ts'
export { TIER_METRICS, tierStatistics, type TierMetric } from './report/statistics.ts'
export { Core, GuestFault, Left, type ProcessorHost, type SystemRoutine } from './state/core.ts'
export * from './state/hooks.ts'
export { EXIT_CAUSES, exitOf, type ExitCause } from './rows/exits.ts'
export { ALL_CONTROLS, applyControls, type ChangedControls } from './control/derive.ts'
export { CR4_VALID } from './control/control-registers.ts'
export { deliver, type Delivery } from './events/deliver.ts'
export { findDescriptor, loadDataSegment } from './events/descriptor.ts'
export { systemRoutine } from './system/index.ts'
export { switchTask } from './events/task-switch.ts'
export {
  ACCESS,
  flushAll,
  flushNonGlobal,
  flushPage,
  forgetSecondStage,
  loadContext,
  PAGING,
  setSecondStage,
  updatePaging,
  type HardwareRoot,
  type SecondStage,
} from './paging/index.ts'
export { readLinear, readRange, wordsAt, writeRange } from './paging/access/linear.ts'
export { fetchPage } from './paging/access/fetch.ts'
export type { CodeWatcher } from './code/blocks.ts'
export { MAX_PHYSICAL_BITS } from './state/paging-entry.ts'
export { HOST_BUS_BASE } from './state/paging-state.ts'
export { setRoot, shareTables, switchRoot } from './paging/tlb/roots.ts'
export { loadPdptes } from './paging/pae.ts'
export { rows, type Row } from './rows/index.ts'
export { runningInstruction } from './code/running.ts'
export { BASE_RIP, createInstruction, type Instruction } from './decode/instruction.ts'
export { decode, type DecodeResult } from './decode/decoder.ts'
export { cpuid, isAdvertised } from './control/cpuid.ts'
export { OTHER_FLAGS, readFlags, SYSRET_FLAGS, writeFlags } from './state/flags.ts'
export * from './state/layout.ts'
export * from './state/register-bits.ts'
export { MODE } from './state/mode.ts'
export { SHADOW, setShadow, shadowOf, type Shadow } from './state/shadow.ts'
export { isCanonical48, MSRS, readMsr, writeMsr, type Msr } from './control/msrs.ts'
export { readRegisters, writeRegisters, type ProcessorState } from './control/registers.ts'
export { resetProcessor } from './control/reset.ts'
export { dpl, FLAT, NO_RPL } from './state/selectors.ts'
export { setAllBounds, setNullSegment, setRealSegment, setSegment } from './state/segments.ts'
export { updateBreakpoints, updateMode } from './control/update-mode.ts'
