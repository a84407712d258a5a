/** System instructions: segments, tables, control and debug registers, MSRs, caches, ports, system calls. (SDM Vol. 3A, "System Instructions".) */
import * as f from './flags.ts'
import { row, type RowExit, type RowSource } from './row.ts'

const exit = (reason: string, when = 'always', qualification = 0): { exit: RowExit } => ({
  exit: { reason, when, qualification },
})
/** Exit qualification of port instructions: the direction, and whether the port is an immediate. */
const IN = 8
const IMMEDIATE = 0x40
const io = (qualification: number) => exit('ioInstruction', 'ioControls', qualification)
/** The same of MOV DR: from the register. */
const FROM_DR = 0x10
const tables = exit('gdtrIdtrAccess', 'descriptorTableExiting')
const selectors = exit('ldtrTrAccess', 'descriptorTableExiting')

/** A new segment may change the mode that code was decoded or translated for. */
const load = { semantics: 'popSegment', flow: 'serialise', sensitive: true } as const
const SEGMENTS = [
  row('MOV', 'Esreg,Sw', '8C /r', { semantics: 'movFromSegment', sensitive: true }),
  row('MOV', 'Sw,Ew', '8E /r', { semantics: 'movToSegment', flow: 'serialise', shadow: true }),
  row('PUSH', 'ES', '06', { semantics: 'pushSegment', sensitive: true, not64: true }),
  row('PUSH', 'CS', '0E', { semantics: 'pushSegment', sensitive: true, not64: true }),
  row('PUSH', 'SS', '16', { semantics: 'pushSegment', sensitive: true, not64: true }),
  row('PUSH', 'DS', '1E', { semantics: 'pushSegment', sensitive: true, not64: true }),
  row('PUSH', 'FS', '0F A0', { semantics: 'pushSegment', sensitive: true, default64: true }),
  row('PUSH', 'GS', '0F A8', { semantics: 'pushSegment', sensitive: true, default64: true }),
  row('POP', 'ES', '07', { ...load, not64: true }),
  row('POP', 'SS', '17', { ...load, not64: true, shadow: true }),
  row('POP', 'DS', '1F', { ...load, not64: true }),
  row('POP', 'FS', '0F A1', { ...load, default64: true }),
  row('POP', 'GS', '0F A9', { ...load, default64: true }),
  row('LES', 'Gv,Mp', 'C4 /r', { semantics: 'loadFarPointer', not64: true, flow: 'serialise' }),
  row('LDS', 'Gv,Mp', 'C5 /r', { semantics: 'loadFarPointer', not64: true, flow: 'serialise' }),
  row('LSS', 'Gv,Mp', '0F B2 /r', { semantics: 'loadFarPointer', flow: 'serialise' }),
  row('LFS', 'Gv,Mp', '0F B4 /r', { semantics: 'loadFarPointer', flow: 'serialise' }),
  row('LGS', 'Gv,Mp', '0F B5 /r', { semantics: 'loadFarPointer', flow: 'serialise' }),
]

const TABLES = [
  row('SLDT', 'Esreg', '0F 00 /0', { notReal: true, sensitive: true, ...selectors }),
  row('STR', 'Esreg', '0F 00 /1', { notReal: true, sensitive: true, ...selectors }),
  row('LLDT', 'Ew', '0F 00 /2', { notReal: true, cpl: 0, ...selectors }),
  row('LTR', 'Ew', '0F 00 /3', { notReal: true, cpl: 0, ...selectors }),
  row('SGDT', 'Ms', '0F 01 /0', { force64: true, sensitive: true, ...tables }),
  row('SIDT', 'Ms', '0F 01 /1', { force64: true, sensitive: true, ...tables }),
  row('LGDT', 'Ms', '0F 01 /2', { force64: true, cpl: 0, ...tables }),
  row('LIDT', 'Ms', '0F 01 /3', { force64: true, cpl: 0, ...tables }),
  row('VERR', 'Ew', '0F 00 /4', { notReal: true, sensitive: true, flags: f.ZERO_ONLY }),
  row('VERW', 'Ew', '0F 00 /5', { notReal: true, sensitive: true, flags: f.ZERO_ONLY }),
  row('LAR', 'Gv,Ew', '0F 02 /r', { notReal: true, sensitive: true, flags: f.ZERO_ONLY }),
  row('LSL', 'Gv,Ew', '0F 03 /r', { notReal: true, sensitive: true, flags: f.ZERO_ONLY }),
  row('ARPL', 'Ew,Gw', '63 /r', { not64: true, notReal: true, flags: f.ZERO_ONLY }),
]

/** ModRM.mod is ignored, the operand is 32 bits outside 64-bit mode and 64 in it. */
const crAccess = { force64: true, cpl: 0 } as const
const drAccess = { force64: true, cpl: 0 } as const
const undefinedStatus = f.flags('', 'OSZAPC', 'OSZAPC')
const CONTROL_REGISTERS = [
  row('MOV', 'Ry,Cy', '0F 20 /r mod=*', {
    ...crAccess,
    ...exit('crAccess', 'crStoreControls'),
    semantics: 'movFromControl',
    flags: undefinedStatus,
  }),
  row('MOV', 'Cy,Ry', '0F 22 /r mod=*', {
    ...crAccess,
    ...exit('crAccess', 'crLoadControls'),
    semantics: 'movToControl',
    flow: 'serialise',
    flags: undefinedStatus,
  }),
  row('MOV', 'Ry,Dy', '0F 21 /r mod=*', {
    ...drAccess,
    ...exit('movDr', 'movDrExiting', FROM_DR),
    semantics: 'movFromDebug',
    flags: undefinedStatus,
  }),
  row('MOV', 'Dy,Ry', '0F 23 /r mod=*', {
    ...drAccess,
    ...exit('movDr', 'movDrExiting'),
    semantics: 'movToDebug',
    flow: 'serialise',
    flags: undefinedStatus,
  }),
  row('SMSW', 'Esreg', '0F 01 /4', { sensitive: true }),
  row('LMSW', 'Ew', '0F 01 /6', { cpl: 0, flow: 'serialise', ...exit('crAccess', 'lmswControls') }),
  row('CLTS', '', '0F 06', { cpl: 0, flow: 'serialise', ...exit('crAccess', 'cltsControls') }),
]

const INTERRUPT_FLAG = [
  row('CLI', '', 'FA', { flags: f.flags('LVIFG', 'IF') }),
  row('STI', '', 'FB', { flags: f.flags('LVIFG', 'IF'), flow: 'serialise', shadow: true }),
  row('CLAC', '', 'NP 0F 01 CA', { cpuid: 'smap', cpl: 0, cplFault: 'ud', flags: f.flags('', 'X') }),
  row('STAC', '', 'NP 0F 01 CB', { cpuid: 'smap', cpl: 0, cplFault: 'ud', flags: f.flags('', 'X') }),
]

const PORTS = [
  row('IN', 'AL,Ib', 'E4', io(IN | IMMEDIATE)),
  row('IN', 'eAX,Ib', 'E5', io(IN | IMMEDIATE)),
  row('OUT', 'Ib,AL', 'E6', io(IMMEDIATE)),
  row('OUT', 'Ib,eAX', 'E7', io(IMMEDIATE)),
  row('IN', 'AL,DX', 'EC', io(IN)),
  row('IN', 'eAX,DX', 'ED', io(IN)),
  row('OUT', 'DX,AL', 'EE', io(0)),
  row('OUT', 'DX,eAX', 'EF', io(0)),
]

const MACHINE = [
  row('HLT', '', 'F4', { cpl: 0, flow: 'halt', ...exit('hlt', 'hltExiting') }),
  row('CPUID', '', '0F A2', exit('cpuid')),
  row('RDMSR', '', '0F 32', { cpl: 0, ...exit('rdmsr', 'msrBitmaps') }),
  row('WRMSR', '', '0F 30', { cpl: 0, flow: 'serialise', ...exit('wrmsr', 'msrBitmaps') }),
  row('RDTSC', '', '0F 31', exit('rdtsc', 'rdtscExiting')),
  row('RDTSCP', '', '0F 01 F9', { cpuid: 'rdtscp', enabledBy: 'enableRdtscp', ...exit('rdtscp', 'rdtscExiting') }),
  row('RDPID', 'Ry', 'F3 0F C7 /7', { cpuid: 'rdpid', enabledBy: 'enableRdtscp', force64: true }),
  row('RDPMC', '', '0F 33', exit('rdpmc', 'rdpmcExiting')),
  row('RDRAND', 'Rv', 'NFx 0F C7 /6', {
    cpuid: 'rdrand',
    flags: f.flags('', 'OSZAPC'),
    ...exit('rdrand', 'rdrandExiting'),
  }),
  row('RDSEED', 'Rv', 'NFx 0F C7 /7', {
    cpuid: 'rdseed',
    flags: f.flags('', 'OSZAPC'),
    ...exit('rdseed', 'rdseedExiting'),
  }),
  row('MONITOR', '', 'NP 0F 01 C8', { cpuid: 'monitor', cpl: 0, cplFault: 'ud', ...exit('monitor', 'monitorExiting') }),
  row('MWAIT', '', 'NP 0F 01 C9', {
    cpuid: 'monitor',
    cpl: 0,
    cplFault: 'ud',
    flow: 'halt',
    ...exit('mwait', 'mwaitExiting'),
  }),
  row('UMONITOR', 'Rnone', 'F3 0F AE /6', { cpuid: 'waitpkg', enabledBy: 'enableUserWaitAndPause' }),
  row('UMWAIT', 'Rd', 'F2 0F AE /6', {
    cpuid: 'waitpkg',
    enabledBy: 'enableUserWaitAndPause',
    flags: f.flags('', 'OSZAPC'),
    ...exit('umwait', 'rdtscExiting'),
  }),
  row('TPAUSE', 'Rd', '66 0F AE /6', {
    cpuid: 'waitpkg',
    enabledBy: 'enableUserWaitAndPause',
    flags: f.flags('', 'OSZAPC'),
    ...exit('tpause', 'rdtscExiting'),
  }),
  // There is no system-management mode to resume from.
  row('RSM', '', '0F AA', { semantics: 'ud', flow: 'trap' }),
  row('GETSEC', '', 'NP 0F 37', { cpuid: 'smx', flow: 'far', ...exit('getsec') }),
  row('ENCLS', '', 'NP 0F 01 CF', {
    cpuid: 'sgx',
    cpl: 0,
    cplFault: 'ud',
    notReal: true,
    ...exit('encls', 'enclsExiting'),
  }),
  row('ENCLU', '', 'NP 0F 01 D7', { cpuid: 'sgx', notReal: true }),
  row('RDPKRU', '', 'NP 0F 01 EE', { cpuid: 'pku' }),
  row('WRPKRU', '', 'NP 0F 01 EF', { cpuid: 'pku' }),
  row('SERIALIZE', '', 'NP 0F 01 E8', { cpuid: 'serialize' }),
]

const CACHES = [
  row('INVD', '', '0F 08', { cpl: 0, ...exit('invd') }),
  row('WBINVD', '', '0F 09', { cpl: 0, ...exit('wbinvd', 'wbinvdExiting') }),
  row('WBNOINVD', '', 'F3 0F 09', {
    semantics: 'wbinvd',
    cpuid: 'wbnoinvd',
    cpl: 0,
    ...exit('wbinvd', 'wbinvdExiting'),
  }),
  row('INVLPG', 'Mb', '0F 01 /7', { cpl: 0, flow: 'serialise', ...exit('invlpg', 'invlpgExiting') }),
  row('INVPCID', 'Gy,Mx', '66 0F 38 82 /r', {
    cpuid: 'invpcid',
    enabledBy: 'enableInvpcid',
    force64: true,
    cpl: 0,
    flow: 'serialise',
    ...exit('invpcid', 'invlpgExiting'),
  }),
  row('CLFLUSH', 'Mb', 'NP 0F AE /7', { cpuid: 'clfsh' }),
  row('CLFLUSHOPT', 'Mb', '66 0F AE /7', { semantics: 'clflush', cpuid: 'clflushopt' }),
  row('CLWB', 'Mb', '66 0F AE /6', { semantics: 'clflush', cpuid: 'clwb' }),
  row('LFENCE', '', 'NP 0F AE /5 reg', { semantics: 'fence', cpuid: 'sse2' }),
  row('MFENCE', '', 'NP 0F AE /6 reg', { semantics: 'fence', cpuid: 'sse2' }),
  row('SFENCE', '', 'NP 0F AE /7 reg', { semantics: 'fence', cpuid: 'sse' }),
]

/** SYSCALL and SYSRET outside 64-bit mode are #UD on Intel's chips. */
const SYSTEM_CALLS = [
  row('SYSCALL', '', '0F 05', { only64: true, flow: 'far', flags: f.flags(f.EVERY_FLAG, f.EVERY_FLAG) }),
  row('SYSRET', '', '0F 07', {
    only64: true,
    cpl: 0,
    flow: 'far',
    flags: f.flags('', f.EVERY_FLAG),
    names: 'SYSRET SYSRET SYSRETQ',
  }),
  // In real-address mode #GP, not #UD.
  row('SYSENTER', '', '0F 34', { cpuid: 'sep', flow: 'far', flags: f.flags('', 'VI') }),
  row('SYSEXIT', '', '0F 35', { cpuid: 'sep', cpl: 0, flow: 'far', names: 'SYSEXIT SYSEXIT SYSEXITQ' }),
  row('SWAPGS', '', '0F 01 F8', { only64: true, cpl: 0 }),
  row('RDFSBASE', 'Ry', 'F3 0F AE /0', { cpuid: 'fsgsbase', only64: true }),
  row('RDGSBASE', 'Ry', 'F3 0F AE /1', { cpuid: 'fsgsbase', only64: true }),
  row('WRFSBASE', 'Ry', 'F3 0F AE /2', { cpuid: 'fsgsbase', only64: true }),
  row('WRGSBASE', 'Ry', 'F3 0F AE /3', { cpuid: 'fsgsbase', only64: true }),
]

/** Shadow stacks (CET): not advertised. Without them RDSSP is a NOP, the others #UD. */
const SHADOW_STACKS = [
  row('RDSSP', 'Ry', 'F3 0F 1E /1', { cpuid: 'cetSs', names: 'RDSSPD RDSSPD RDSSPQ' }),
  row('INCSSP', 'Ry', 'F3 0F AE /5', { cpuid: 'cetSs', names: 'INCSSPD INCSSPD INCSSPQ' }),
  row('SETSSBSY', '', 'F3 0F 01 E8', { cpuid: 'cetSs', cpl: 0 }),
  row('SAVEPREVSSP', '', 'F3 0F 01 EA', { cpuid: 'cetSs' }),
  row('RSTORSSP', 'Mq', 'F3 0F 01 /5', { cpuid: 'cetSs', flags: f.flags('', 'OSZAPC') }),
  row('CLRSSBSY', 'Mq', 'F3 0F AE /6', { cpuid: 'cetSs', cpl: 0, flags: f.flags('', 'OSZAPC') }),
  row('WRSS', 'My,Gy', 'NP 0F 38 F6 /r', { cpuid: 'cetSs', names: 'WRSSD WRSSD WRSSQ' }),
  row('WRUSS', 'My,Gy', '66 0F 38 F5 /r', { cpuid: 'cetSs', cpl: 0, names: 'WRUSSD WRUSSD WRUSSQ' }),
]

export const system: readonly RowSource[] = [
  ...SEGMENTS,
  ...TABLES,
  ...CONTROL_REGISTERS,
  ...INTERRUPT_FLAG,
  ...PORTS,
  ...MACHINE,
  ...CACHES,
  ...SYSTEM_CALLS,
  ...SHADOW_STACKS,
]
