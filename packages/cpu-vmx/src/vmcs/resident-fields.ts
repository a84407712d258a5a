/**
 * Guest-state fields of the running VMCS are kept in the processor. This table says where. They are read and written by field name; the region itself
 * is out of date until `synchronise`.
 */

import {
  applyControls,
  gpr,
  loadContext,
  readFlags,
  RSP,
  S,
  SEG,
  segment,
  SEGMENT,
  setShadow,
  SHADOW,
  shadowOf,
  updateMode,
  updatePaging,
  writeFlags,
} from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import { CR0_64, CR4_64 } from '@nonroot/contracts'
import { Interruptibility } from '../tables/interruption-info.ts'
import { SEGMENT_FIELDS, type VmcsFieldName } from '../tables/vmcs-fields.ts'
import type { ResidentFields, Vmcs } from './vmcs.ts'

interface ResidentField {
  read(core: Core): bigint
  write(core: Core, value: bigint): void
}

const slot = (offset: number): ResidentField => ({
  read: (core) => core.get64(offset),
  write: (core, value) => core.set64(offset, value),
})
const slot32 = (offset: number): ResidentField => ({
  read: (core) => BigInt(core.get32(offset) >>> 0),
  write: (core, value) => core.set32(offset, Number(BigInt.asIntN(32, value))),
})
/** A control register as VMX holds it: fixed bits are set, whatever the guest sees. */
const control = (name: 'cr0' | 'cr4' | 'efer', fixed: bigint): ResidentField => ({
  read: (core) => core.get64(S[name]) | fixed,
  write: (core, value) => {
    const old = core.get32(S[name])
    core.set64(S[name], value & ~fixed)
    applyControls(core, { [name]: old ^ core.get32(S[name]) })
  },
})

const segments = Object.fromEntries(
  SEGMENT_FIELDS.flatMap((name): [string, ResidentField][] => {
    const at = segment(SEGMENT[name.toLowerCase() as keyof typeof SEGMENT])
    return [
      [`guest${name}Selector`, slot32(at + SEG.selector)],
      [`guest${name}Limit`, slot32(at + SEG.limit)],
      [`guest${name}Attributes`, slot32(at + SEG.attributes)],
      [`guest${name}Base`, slot(at + SEG.base)],
    ]
  }),
)

const FIELDS: Readonly<Partial<Record<VmcsFieldName, ResidentField>>> = {
  ...segments,
  guestGdtrBase: slot(segment(SEGMENT.gdtr) + SEG.base),
  guestGdtrLimit: slot32(segment(SEGMENT.gdtr) + SEG.limit),
  guestIdtrBase: slot(segment(SEGMENT.idtr) + SEG.base),
  guestIdtrLimit: slot32(segment(SEGMENT.idtr) + SEG.limit),
  // NE and VMXE are fixed in VMX operation; the guest's own view of them is in the read shadows.
  guestCr0: control('cr0', CR0_64.ne),
  guestCr4: control('cr4', CR4_64.vmxe),
  cr0ReadShadow: { read: (core) => core.get64(S.cr0), write: (core, value) => core.set64(S.cr0, value) },
  cr4ReadShadow: { read: (core) => core.get64(S.cr4), write: (core, value) => core.set64(S.cr4, value) },
  // The hardware root if there is one: what the hardware register would hold.
  guestCr3: {
    read: (core) => (core.paging.hardwareRoot ? BigInt(core.paging.hardwareRoot.root) : core.get64(S.cr3)),
    write: (core, value) => {
      core.set64(S.cr3, value)
      updatePaging(core)
      loadContext(core, true)
    },
  },
  guestEfer: control('efer', 0n),
  guestPat: slot(S.pat),
  guestDr7: slot(S.dr7),
  guestRsp: slot(gpr(RSP)),
  guestRip: slot(S.rip),
  guestRflags: {
    read: (core) => BigInt(readFlags(core) >>> 0),
    write: (core, value) => {
      writeFlags(core, Number(BigInt.asIntN(32, value)))
      updateMode(core)
    },
  },
  guestSysenterCs: slot32(S.sysenterCs),
  guestSysenterEsp: slot(S.sysenterEsp),
  guestSysenterEip: slot(S.sysenterEip),
  guestPendingDebugExceptions: {
    read: (core) => BigInt(core.pendingDebug & 0x400f),
    write: (core, value) => void (core.pendingDebug = Number(value & 0x400fn)),
  },
  guestInterruptibility: {
    read: (core) =>
      BigInt(
        (shadowOf(core) === SHADOW.sti ? Interruptibility.blockingBySti : 0) |
          (shadowOf(core) === SHADOW.movSs ? Interruptibility.blockingByMovSs : 0) |
          (core.get32(S.nmiBlocked) ? Interruptibility.blockingByNmi : 0),
      ),
    write: (core, value) => {
      const bits = Number(value)
      core.covered = SHADOW.none
      setShadow(
        core,
        bits & Interruptibility.blockingBySti
          ? SHADOW.sti
          : bits & Interruptibility.blockingByMovSs
            ? SHADOW.movSs
            : SHADOW.none,
      )
      core.set32(S.nmiBlocked, bits & Interruptibility.blockingByNmi ? 1 : 0)
    },
  },
  tscOffset: slot(S.tscOffset),
  guestPdpte0: pdpte(0),
  guestPdpte1: pdpte(1),
  guestPdpte2: pdpte(2),
  guestPdpte3: pdpte(3),
}

function pdpte(n: number): ResidentField {
  return {
    read: ({ paging: { pdptes } }) => (BigInt(pdptes[n * 2 + 1]! >>> 0) << 32n) | BigInt(pdptes[n * 2]! >>> 0),
    write: ({ paging: { pdptes } }, value) => {
      pdptes[n * 2] = Number(BigInt.asIntN(32, value))
      pdptes[n * 2 + 1] = Number(BigInt.asIntN(32, value >> 32n))
    },
  }
}

export class GuestState implements ResidentFields {
  /** Without TSC offsetting the processor adds no offset, and the field exists only in the region. */
  private hasTscOffset = true
  private readonly core: Core

  constructor(core: Core) {
    this.core = core
  }

  private isResident(name: VmcsFieldName): boolean {
    return name !== 'tscOffset' || this.hasTscOffset
  }

  /** Called at entry, with the control's value. */
  setTscOffsetting(vmcs: Vmcs, on: boolean): void {
    if (on === this.hasTscOffset) return
    if (!on) vmcs.store('tscOffset', this.core.get64(S.tscOffset))
    this.core.set64(S.tscOffset, on ? vmcs.stored('tscOffset') : 0n)
    this.hasTscOffset = on
  }

  read(name: VmcsFieldName): bigint | undefined {
    if (!this.isResident(name)) return undefined
    return FIELDS[name]?.read(this.core)
  }
  write(name: VmcsFieldName, value: bigint): boolean {
    if (!this.isResident(name)) return false
    const field = FIELDS[name]
    field?.write(this.core, value)
    return field !== undefined
  }

  /** Writes the resident fields to the region, as VMCLEAR does and a snapshot needs. */
  synchronise(vmcs: Vmcs): void {
    for (const name of Object.keys(FIELDS) as VmcsFieldName[])
      if (this.isResident(name)) vmcs.store(name, FIELDS[name]!.read(this.core))
  }
}
