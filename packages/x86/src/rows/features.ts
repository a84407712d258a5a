/** Where CPUID advertises the features that rows name: leaf, subleaf, register, bit. (SDM Vol. 2A, "CPUID".) */

export interface FeatureBit {
  readonly leaf: number
  readonly subleaf: number
  readonly register: 'eax' | 'ebx' | 'ecx' | 'edx'
  readonly bit: number
}

type Register = FeatureBit['register']

const at = (leaf: number, subleaf: number, register: Register, bit: number): FeatureBit => ({
  leaf,
  subleaf,
  register,
  bit,
})
const leaf1 = (register: Register, bit: number) => at(1, 0, register, bit)
const leaf7 = (register: Register, bit: number) => at(7, 0, register, bit)
const extended = (register: Register, bit: number) => at(0x8000_0001, 0, register, bit)

export const FEATURES = {
  fpu: leaf1('edx', 0),
  sep: leaf1('edx', 11),
  cmov: leaf1('edx', 15),
  clfsh: leaf1('edx', 19),
  mmx: leaf1('edx', 23),
  fxsr: leaf1('edx', 24),
  sse: leaf1('edx', 25),
  sse2: leaf1('edx', 26),
  sse3: leaf1('ecx', 0),
  pclmulqdq: leaf1('ecx', 1),
  monitor: leaf1('ecx', 3),
  vmx: leaf1('ecx', 5),
  smx: leaf1('ecx', 6),
  ssse3: leaf1('ecx', 9),
  'sse4.1': leaf1('ecx', 19),
  'sse4.2': leaf1('ecx', 20),
  movbe: leaf1('ecx', 22),
  popcnt: leaf1('ecx', 23),
  aes: leaf1('ecx', 25),
  xsave: leaf1('ecx', 26),
  rdrand: leaf1('ecx', 30),
  fsgsbase: leaf7('ebx', 0),
  sgx: leaf7('ebx', 2),
  bmi1: leaf7('ebx', 3),
  bmi2: leaf7('ebx', 8),
  invpcid: leaf7('ebx', 10),
  rtm: leaf7('ebx', 11),
  rdseed: leaf7('ebx', 18),
  adx: leaf7('ebx', 19),
  smap: leaf7('ebx', 20),
  clflushopt: leaf7('ebx', 23),
  clwb: leaf7('ebx', 24),
  sha: leaf7('ebx', 29),
  prefetchwt1: leaf7('ecx', 0),
  pku: leaf7('ecx', 3),
  waitpkg: leaf7('ecx', 5),
  cetSs: leaf7('ecx', 7),
  rdpid: leaf7('ecx', 22),
  cldemote: leaf7('ecx', 25),
  movdiri: leaf7('ecx', 27),
  movdir64b: leaf7('ecx', 28),
  serialize: leaf7('edx', 14),
  xsaveopt: at(0xd, 1, 'eax', 0),
  xsavec: at(0xd, 1, 'eax', 1),
  xsaves: at(0xd, 1, 'eax', 3),
  lzcnt: extended('ecx', 5),
  prefetchw: extended('ecx', 8),
  rdtscp: extended('edx', 27),
  wbnoinvd: at(0x8000_0008, 0, 'ebx', 9),
} as const satisfies Record<string, FeatureBit>

export type Feature = keyof typeof FEATURES
