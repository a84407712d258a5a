/**
 * The CPUID model: x86-64-v2 with further features, of a processor that does not speculate. Only what works is advertised. The host adds APIC
 * identity and hypervisor leaves. (SDM Vol. 2A, "CPUID")
 */
import type { Core } from '../state/core.ts'
import { MAX_PHYSICAL_BITS } from '../state/paging-entry.ts'
import { FEATURES, type Feature } from '../rows/features.ts'
import { S } from '../state/layout.ts'
import { CR4 } from '../state/register-bits.ts'

/**
 * Family 6, model 36H, stepping 1: an in-order Atom. Kernels know that such processors do not speculate, so they use neither page-table isolation nor
 * retpolines. This is true here.
 */
export const SIGNATURE = 0x0003_0661

/** Features that have rows. */
const ADVERTISED: readonly Feature[] = [
  'fpu',
  'sep',
  'cmov',
  'clfsh',
  'mmx',
  'fxsr',
  'sse',
  'sse2',
  'sse3',
  'pclmulqdq',
  'ssse3',
  'sse4.1',
  'sse4.2',
  'movbe',
  'popcnt',
  'aes',
  'xsave',
  'rdrand',
  'fsgsbase',
  'bmi1',
  'bmi2',
  'invpcid',
  'rdseed',
  'adx',
  'smap',
  'clflushopt',
  'clwb',
  'sha',
  'rdpid',
  'xsaveopt',
  'xsavec',
  'xsaves',
  'lzcnt',
  'prefetchw',
  'rdtscp',
  'wbnoinvd',
]

type Register = 'eax' | 'ebx' | 'ecx' | 'edx'
const bits = (...numbers: number[]): number => numbers.reduce((all, n) => all | (1 << n), 0)

/** Features that are not instructions. */
const BEHAVIOUR: readonly { leaf: number; subleaf: number; register: Register; bits: number; what: string }[] = [
  { leaf: 1, subleaf: 0, register: 'ecx', bits: bits(13, 17, 21, 24), what: 'CMPXCHG16B, PCID, x2APIC, TSC deadline' },
  {
    leaf: 1,
    subleaf: 0,
    register: 'edx',
    bits: bits(2, 3, 4, 5, 6, 7, 8, 9, 12, 13, 14, 16, 17),
    what: 'DE PSE TSC MSR PAE MCE CX8 APIC MTRR PGE MCA PAT PSE-36',
  },
  {
    leaf: 7,
    subleaf: 0,
    register: 'ebx',
    bits: bits(1, 7, 9, 13),
    what: 'TSC_ADJUST, SMEP, fast REP MOVSB and STOSB, no FCS and FDS',
  },
  { leaf: 7, subleaf: 0, register: 'ecx', bits: bits(2), what: 'UMIP' },
  { leaf: 7, subleaf: 0, register: 'edx', bits: bits(4, 29), what: 'fast short REP MOVSB, IA32_ARCH_CAPABILITIES' },
  { leaf: 0xd, subleaf: 1, register: 'eax', bits: bits(2), what: 'XGETBV with ECX = 1' },
  { leaf: 0x8000_0001, subleaf: 0, register: 'ecx', bits: bits(0), what: 'LAHF in 64-bit mode' },
  {
    leaf: 0x8000_0001,
    subleaf: 0,
    register: 'edx',
    bits: bits(11, 20, 26, 29),
    what: 'SYSCALL, NX, 1 GiB pages, 64-bit mode',
  },
]

const BRAND = 'nonroot software processor'
const HIGHEST = 0x16
const HIGHEST_EXTENDED = 0x8000_0008

/** Deterministic cache parameters: type and level, sets, size. The model has one line size, 64 bytes, and 8 ways. */
const CACHES = [
  { kind: 1, level: 1, sets: 64 },
  { kind: 2, level: 1, sets: 64 },
  { kind: 3, level: 2, sets: 2048 },
] as const

const REGISTER_INDEX: Record<Register, number> = { eax: 0, ebx: 1, ecx: 2, edx: 3 }

/** Feature bits gathered by `leaf/subleaf`. */
const features = new Map<string, Uint32Array>()
function advertise(leaf: number, subleaf: number, register: Register, mask: number): void {
  const key = `${leaf}/${subleaf}`
  let words = features.get(key)
  if (!words) features.set(key, (words = new Uint32Array(4)))
  words[REGISTER_INDEX[register]]! |= mask
}
for (const name of ADVERTISED) {
  const { leaf, subleaf, register, bit } = FEATURES[name]
  advertise(leaf, subleaf, register, 1 << bit)
}
for (const { leaf, subleaf, register, bits: mask } of BEHAVIOUR) advertise(leaf, subleaf, register, mask)

export const isAdvertised = (feature: Feature): boolean => ADVERTISED.includes(feature)

const ascii = (text: string, at: number): number => {
  let word = 0
  for (let i = 3; i >= 0; i--) word = (word << 8) | (text.charCodeAt(at + i) || 0)
  return word
}

/** Fills `result` with EAX, EBX, ECX, EDX of a leaf. Leaves above the highest return the highest basic leaf, as on real processors. */
export function cpuid(core: Core, leaf: number, subleaf: number, result: Uint32Array): void {
  const basic = leaf <= HIGHEST || (leaf >= 0x8000_0000 && leaf <= HIGHEST_EXTENDED) ? leaf : HIGHEST
  result.fill(0)
  const known =
    features.get(`${basic}/${subleaf}`) ?? (basic === 1 || basic > 0x8000_0000 ? features.get(`${basic}/0`) : undefined)
  if (known) result.set(known)
  fill(core, basic, subleaf, result)
  core.host.cpuid?.(leaf, subleaf, result)
}

function fill(core: Core, leaf: number, subleaf: number, r: Uint32Array): void {
  switch (leaf) {
    case 0:
      r[0] = HIGHEST
      r[1] = ascii('Genu', 0)
      r[3] = ascii('ineI', 0)
      r[2] = ascii('ntel', 0)
      return
    case 1:
      r[0] = SIGNATURE
      r[1] = (8 << 8) | (1 << 16) // CLFLUSH line of 64 bytes, one logical processor
      if (core.get32(S.cr4) & CR4.osxsave) r[2]! |= 1 << 27 // OSXSAVE
      if (!(core.get32(S.apicBase) & 0x800)) r[3]! &= ~(1 << 9)
      return
    case 2:
      r[0] = 0x00fe_ff01 // see leaf 4
      return
    case 4: {
      const cache = CACHES[subleaf]
      if (!cache) return
      r[0] = cache.kind | (cache.level << 5) | (1 << 8)
      r[1] = 63 | (7 << 22)
      r[2] = cache.sets - 1
      return
    }
    case 6:
      r[0] = 1 << 2 // the APIC timer always runs
      return
    case 0xb:
      if (subleaf > 1) return void (r[2] = subleaf & 0xff)
      r[1] = 1
      r[2] = subleaf | ((subleaf + 1) << 8)
      return
    case 0xd:
      return fillXsave(subleaf, r)
    case 0x15: {
      // The crystal is the TSC's own clock.
      const frequency = core.host.tscFrequency ?? 0
      if (!frequency) return
      const ratio = Math.max(1, Math.ceil(frequency / 0xffff_ffff))
      r[0] = 1
      r[1] = ratio
      r[2] = Math.round(frequency / ratio)
      return
    }
    case 0x16: {
      const mhz = Math.round((core.host.tscFrequency ?? 0) / 1e6)
      r[0] = r[1] = mhz
      r[2] = mhz ? 100 : 0
      return
    }
    case 0x8000_0000:
      r[0] = HIGHEST_EXTENDED
      return
    case 0x8000_0002:
    case 0x8000_0003:
    case 0x8000_0004:
      for (let i = 0; i < 4; i++) r[i] = ascii(BRAND, (leaf - 0x8000_0002) * 16 + i * 4)
      return
    case 0x8000_0006:
      r[2] = (1024 << 16) | (6 << 12) | 64
      return
    case 0x8000_0007:
      r[3] = 1 << 8 // invariant TSC
      return
    case 0x8000_0008:
      r[0] = MAX_PHYSICAL_BITS | (48 << 8)
  }
}

/** x87 and SSE state: 512 bytes and the header. (SDM Vol. 1, "Enumeration of CPU Support for XSAVE") */
function fillXsave(subleaf: number, r: Uint32Array): void {
  if (subleaf === 0) {
    r[0] = 3
    r[1] = r[2] = 576
  } else if (subleaf === 1) r[1] = 576
}
