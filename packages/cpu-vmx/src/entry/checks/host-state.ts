/** Checks on the host-state area. (SDM Vol. 3C, "Checks on VMX Controls and Host-State Area") */

import { CR4_64, EFER_64 } from '@nonroot/contracts'
import { ExitControl } from '../../tables/controls.ts'
import { CR0_FIXED0, CR4_FIXED0 } from '../../tables/capability-msrs.ts'
import { exit, isCanonical, fits, isPat, host } from './entry-check.ts'
import type { EntryCheck } from './entry-check.ts'
const HOST_REGISTERS = 'Checks on Host Control Registers, MSRs, and SSP'
const HOST_SEGMENTS = 'Checks on Host Segment and Descriptor-Table Registers'
const HOST_SIZE = 'Checks Related to Address-Space Size'
const LONG_MODE = EFER_64.lme | EFER_64.lma

export const HOST_STATE_CHECKS: readonly EntryCheck[] = [
  host(
    HOST_REGISTERS,
    'host.cr0',
    (v) => (v.read('hostCr0') & CR0_FIXED0) === CR0_FIXED0 && v.read('hostCr0') >> 32n === 0n,
  ),
  host(
    HOST_REGISTERS,
    'host.cr4',
    (v, c) => (v.read('hostCr4') & CR4_FIXED0) === CR4_FIXED0 && (v.read('hostCr4') & ~c.cr4Fixed1) === 0n,
  ),
  host(HOST_REGISTERS, 'host.cr3', (v, c) => fits(v.read('hostCr3'), c)),
  host(
    HOST_REGISTERS,
    'host.sysenter',
    (v) => isCanonical(v.read('hostSysenterEsp')) && isCanonical(v.read('hostSysenterEip')),
  ),
  host(HOST_REGISTERS, 'host.pat', (v) => !exit(v, ExitControl.loadPat) || isPat(v.read('hostPat'))),
  host(HOST_REGISTERS, 'host.efer', (v, c) => {
    if (!exit(v, ExitControl.loadEfer)) return true
    const efer = v.read('hostEfer')
    const size = exit(v, ExitControl.hostAddressSpaceSize) ? LONG_MODE : 0n
    return (efer & ~c.eferMask) === 0n && (efer & LONG_MODE) === size
  }),
  ...(['Es', 'Cs', 'Ss', 'Ds', 'Fs', 'Gs', 'Tr'] as const).map((name) =>
    host(HOST_SEGMENTS, `host.${name.toLowerCase()}.selector`, (v) => (v.read(`host${name}Selector`) & 7) === 0),
  ),
  host(HOST_SEGMENTS, 'host.cs.null', (v) => v.read('hostCsSelector') !== 0),
  host(HOST_SEGMENTS, 'host.tr.null', (v) => v.read('hostTrSelector') !== 0),
  host(
    HOST_SEGMENTS,
    'host.ss.null',
    (v) => exit(v, ExitControl.hostAddressSpaceSize) || v.read('hostSsSelector') !== 0,
  ),
  ...(['hostFsBase', 'hostGsBase', 'hostGdtrBase', 'hostIdtrBase', 'hostTrBase'] as const).map((name) =>
    host(HOST_SEGMENTS, `host.${name}.canonical`, (v) => isCanonical(v.read(name))),
  ),
  // The host is always in 64-bit mode: this VMX implementation has no other.
  host(HOST_SIZE, 'host.addressSpaceSize', (v) => exit(v, ExitControl.hostAddressSpaceSize)),
  host(HOST_SIZE, 'host.cr4.pae', (v) => (v.read('hostCr4') & CR4_64.pae) !== 0n),
  host(HOST_SIZE, 'host.rip.canonical', (v) => isCanonical(v.read('hostRip'))),
]
