/** VMCS fields: encodings with width and type. Facts only. (SDM Vol. 3D, "Field Encoding in VMCS") */

/** Bits of a field. `natural` fields have 64 on this processor. */
export type FieldWidth = 16 | 32 | 64 | 'natural'
/** Bits 11:10 of the encoding. */
export type FieldType = 'control' | 'exitInformation' | 'guest' | 'host'

export interface VmcsField<W extends FieldWidth = FieldWidth> {
  readonly encoding: number
  readonly width: W
  readonly type: FieldType
  /** Byte offset in the VMCS region. */
  readonly offset: number
}

const WIDTHS = [16, 64, 32, 'natural'] as const
const TYPES = ['control', 'exitInformation', 'guest', 'host'] as const

/** VMCS revision identifier, the first word of a region. Bit 31 is the shadow-VMCS indicator and not part of it. */
export const VMCS_REVISION = 0x6e72_0001
/** Byte offsets of the header. */
export const VMCS_HEADER = { revision: 0, abort: 4, launchState: 8 } as const

/** Start, bytes per field and fields per type of the four areas, by width code. They fit one frame. */
const AREAS = [
  { start: 0x040, bytes: 2, count: 32 },
  { start: 0x140, bytes: 8, count: 48 },
  { start: 0x740, bytes: 4, count: 32 },
  { start: 0x940, bytes: 8, count: 32 },
] as const

/** Byte offset of a field in the region, computed from its encoding; every possible encoding has one. -1: not a possible encoding. */
export function fieldOffset(encoding: number): number {
  const area = AREAS[(encoding >>> 13) & 3]!
  const index = (encoding >>> 1) & 0x1ff
  if (encoding >>> 15 || index >= area.count) return -1
  return area.start + (((encoding >>> 10) & 3) * area.count + index) * area.bytes
}

const field = <W extends FieldWidth>(width: W, encoding: number): VmcsField<W> => {
  if (WIDTHS[(encoding >>> 13) & 3] !== width)
    throw new Error(`field ${encoding.toString(16)} is not of width ${width}`)
  return { encoding, width, type: TYPES[(encoding >>> 10) & 3]!, offset: fieldOffset(encoding) }
}
const f16 = (encoding: number) => field(16, encoding)
const f32 = (encoding: number) => field(32, encoding)
const f64 = (encoding: number) => field(64, encoding)
const natural = (encoding: number) => field('natural', encoding)

export const VMCS_FIELDS = {
  // 16-bit control fields
  vpid: f16(0x0000),
  postedInterruptNotificationVector: f16(0x0002),
  eptpIndex: f16(0x0004),
  hlatPrefixSize: f16(0x0006),
  lastPidPointerIndex: f16(0x0008),
  // 16-bit guest-state fields
  guestEsSelector: f16(0x0800),
  guestCsSelector: f16(0x0802),
  guestSsSelector: f16(0x0804),
  guestDsSelector: f16(0x0806),
  guestFsSelector: f16(0x0808),
  guestGsSelector: f16(0x080a),
  guestLdtrSelector: f16(0x080c),
  guestTrSelector: f16(0x080e),
  guestInterruptStatus: f16(0x0810),
  pmlIndex: f16(0x0812),
  guestUinv: f16(0x0814),
  // 16-bit host-state fields
  hostEsSelector: f16(0x0c00),
  hostCsSelector: f16(0x0c02),
  hostSsSelector: f16(0x0c04),
  hostDsSelector: f16(0x0c06),
  hostFsSelector: f16(0x0c08),
  hostGsSelector: f16(0x0c0a),
  hostTrSelector: f16(0x0c0c),
  // 64-bit control fields
  ioBitmapA: f64(0x2000),
  ioBitmapB: f64(0x2002),
  msrBitmaps: f64(0x2004),
  exitMsrStoreAddress: f64(0x2006),
  exitMsrLoadAddress: f64(0x2008),
  entryMsrLoadAddress: f64(0x200a),
  executiveVmcsPointer: f64(0x200c),
  pmlAddress: f64(0x200e),
  tscOffset: f64(0x2010),
  virtualApicAddress: f64(0x2012),
  apicAccessAddress: f64(0x2014),
  postedInterruptDescriptorAddress: f64(0x2016),
  vmFunctionControls: f64(0x2018),
  eptPointer: f64(0x201a),
  eoiExitBitmap0: f64(0x201c),
  eoiExitBitmap1: f64(0x201e),
  eoiExitBitmap2: f64(0x2020),
  eoiExitBitmap3: f64(0x2022),
  eptpListAddress: f64(0x2024),
  vmreadBitmap: f64(0x2026),
  vmwriteBitmap: f64(0x2028),
  virtualizationExceptionAddress: f64(0x202a),
  xssExitingBitmap: f64(0x202c),
  enclsExitingBitmap: f64(0x202e),
  subPagePermissionTablePointer: f64(0x2030),
  tscMultiplier: f64(0x2032),
  tertiaryProcessorControls: f64(0x2034),
  enclvExitingBitmap: f64(0x2036),
  lowPasidDirectory: f64(0x2038),
  highPasidDirectory: f64(0x203a),
  sharedEptPointer: f64(0x203c),
  pconfigExitingBitmap: f64(0x203e),
  hlatPointer: f64(0x2040),
  pidPointerTable: f64(0x2042),
  secondaryExitControls: f64(0x2044),
  specCtrlMask: f64(0x204a),
  specCtrlShadow: f64(0x204c),
  // 64-bit exit-information field
  guestPhysicalAddress: f64(0x2400),
  // 64-bit guest-state fields
  vmcsLinkPointer: f64(0x2800),
  guestDebugctl: f64(0x2802),
  guestPat: f64(0x2804),
  guestEfer: f64(0x2806),
  guestPerfGlobalCtrl: f64(0x2808),
  guestPdpte0: f64(0x280a),
  guestPdpte1: f64(0x280c),
  guestPdpte2: f64(0x280e),
  guestPdpte3: f64(0x2810),
  guestBndcfgs: f64(0x2812),
  guestRtitCtl: f64(0x2814),
  guestLbrCtl: f64(0x2816),
  guestPkrs: f64(0x2818),
  // 64-bit host-state fields
  hostPat: f64(0x2c00),
  hostEfer: f64(0x2c02),
  hostPerfGlobalCtrl: f64(0x2c04),
  hostPkrs: f64(0x2c06),
  // 32-bit control fields
  pinControls: f32(0x4000),
  processorControls: f32(0x4002),
  exceptionBitmap: f32(0x4004),
  pageFaultErrorCodeMask: f32(0x4006),
  pageFaultErrorCodeMatch: f32(0x4008),
  cr3TargetCount: f32(0x400a),
  exitControls: f32(0x400c),
  exitMsrStoreCount: f32(0x400e),
  exitMsrLoadCount: f32(0x4010),
  entryControls: f32(0x4012),
  entryMsrLoadCount: f32(0x4014),
  entryInterruptionInfo: f32(0x4016),
  entryExceptionErrorCode: f32(0x4018),
  entryInstructionLength: f32(0x401a),
  tprThreshold: f32(0x401c),
  secondaryProcessorControls: f32(0x401e),
  pleGap: f32(0x4020),
  pleWindow: f32(0x4022),
  instructionTimeoutControl: f32(0x4024),
  // 32-bit exit-information fields
  vmInstructionError: f32(0x4400),
  exitReason: f32(0x4402),
  exitInterruptionInfo: f32(0x4404),
  exitInterruptionErrorCode: f32(0x4406),
  idtVectoringInfo: f32(0x4408),
  idtVectoringErrorCode: f32(0x440a),
  exitInstructionLength: f32(0x440c),
  exitInstructionInfo: f32(0x440e),
  // 32-bit guest-state fields
  guestEsLimit: f32(0x4800),
  guestCsLimit: f32(0x4802),
  guestSsLimit: f32(0x4804),
  guestDsLimit: f32(0x4806),
  guestFsLimit: f32(0x4808),
  guestGsLimit: f32(0x480a),
  guestLdtrLimit: f32(0x480c),
  guestTrLimit: f32(0x480e),
  guestGdtrLimit: f32(0x4810),
  guestIdtrLimit: f32(0x4812),
  guestEsAttributes: f32(0x4814),
  guestCsAttributes: f32(0x4816),
  guestSsAttributes: f32(0x4818),
  guestDsAttributes: f32(0x481a),
  guestFsAttributes: f32(0x481c),
  guestGsAttributes: f32(0x481e),
  guestLdtrAttributes: f32(0x4820),
  guestTrAttributes: f32(0x4822),
  guestInterruptibility: f32(0x4824),
  guestActivityState: f32(0x4826),
  guestSmbase: f32(0x4828),
  guestSysenterCs: f32(0x482a),
  preemptionTimer: f32(0x482e),
  // 32-bit host-state field
  hostSysenterCs: f32(0x4c00),
  // Natural-width control fields
  cr0Mask: natural(0x6000),
  cr4Mask: natural(0x6002),
  cr0ReadShadow: natural(0x6004),
  cr4ReadShadow: natural(0x6006),
  cr3Target0: natural(0x6008),
  cr3Target1: natural(0x600a),
  cr3Target2: natural(0x600c),
  cr3Target3: natural(0x600e),
  // Natural-width exit-information fields
  exitQualification: natural(0x6400),
  ioRcx: natural(0x6402),
  ioRsi: natural(0x6404),
  ioRdi: natural(0x6406),
  ioRip: natural(0x6408),
  guestLinearAddress: natural(0x640a),
  // Natural-width guest-state fields
  guestCr0: natural(0x6800),
  guestCr3: natural(0x6802),
  guestCr4: natural(0x6804),
  guestEsBase: natural(0x6806),
  guestCsBase: natural(0x6808),
  guestSsBase: natural(0x680a),
  guestDsBase: natural(0x680c),
  guestFsBase: natural(0x680e),
  guestGsBase: natural(0x6810),
  guestLdtrBase: natural(0x6812),
  guestTrBase: natural(0x6814),
  guestGdtrBase: natural(0x6816),
  guestIdtrBase: natural(0x6818),
  guestDr7: natural(0x681a),
  guestRsp: natural(0x681c),
  guestRip: natural(0x681e),
  guestRflags: natural(0x6820),
  guestPendingDebugExceptions: natural(0x6822),
  guestSysenterEsp: natural(0x6824),
  guestSysenterEip: natural(0x6826),
  guestSCet: natural(0x6828),
  guestSsp: natural(0x682a),
  guestInterruptSspTable: natural(0x682c),
  // Natural-width host-state fields
  hostCr0: natural(0x6c00),
  hostCr3: natural(0x6c02),
  hostCr4: natural(0x6c04),
  hostFsBase: natural(0x6c06),
  hostGsBase: natural(0x6c08),
  hostTrBase: natural(0x6c0a),
  hostGdtrBase: natural(0x6c0c),
  hostIdtrBase: natural(0x6c0e),
  hostSysenterEsp: natural(0x6c10),
  hostSysenterEip: natural(0x6c12),
  hostRsp: natural(0x6c14),
  hostRip: natural(0x6c16),
} as const satisfies Readonly<Record<string, VmcsField>>

export type VmcsFieldName = keyof typeof VMCS_FIELDS
/** Fields of 16 and 32 bits are numbers, the others bigints. */
export type VmcsFieldValue<N extends VmcsFieldName> = (typeof VMCS_FIELDS)[N]['width'] extends 16 | 32 ? number : bigint
/** Names of the fields of some widths. */
export type VmcsFieldOf<W extends FieldWidth> = {
  [N in VmcsFieldName]: (typeof VMCS_FIELDS)[N]['width'] extends W ? N : never
}[VmcsFieldName]

const byEncoding = new Map(
  (Object.keys(VMCS_FIELDS) as VmcsFieldName[]).map((name) => [VMCS_FIELDS[name].encoding, name]),
)
/** Name by encoding as VMREAD and VMWRITE give it; bit 0 selects the upper half of a 64-bit field. */
export const fieldByEncoding = (encoding: number): VmcsFieldName | undefined => byEncoding.get(encoding & ~1)

/** The eight segment registers with their four fields each, in the manual's order. */
export const SEGMENT_FIELDS = ['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs', 'Ldtr', 'Tr'] as const
export type SegmentFieldName = (typeof SEGMENT_FIELDS)[number]
