/** Guests that never exit by themselves, each busy in another way, for tests of kicks. */

import { createLongModeBench } from './long-mode.ts'

export interface KickedGuest {
  readonly name: string
  readonly program: readonly number[]
  readonly tier?: 'interpreter'
}

const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff)

export const KICKED_GUESTS: readonly KickedGuest[] = [
  { name: 'a compiled loop', program: [0xff, 0xc0, 0xeb, 0xfc] },
  { name: 'an interpreted loop', program: [0xff, 0xc0, 0xeb, 0xfc], tier: 'interpreter' },
  // MOV ESI; MOV EDI; MOV ECX; REP MOVSB; JMP
  {
    name: 'REP MOVSB',
    program: [0xbe, ...u32(0x2_0000), 0xbf, ...u32(0x6_0000), 0xb9, ...u32(0x4_0000), 0xf3, 0xa4, 0xeb, 0xed],
  },
  { name: 'a device', program: [0xec, 0xeb, 0xfd] },
  // CPUID
  { name: 'VM exits', program: [0x0f, 0xa2, 0xeb, 0xfc] },
]

export function kickedGuest({ program, tier }: KickedGuest) {
  const { vcpu } = createLongModeBench(program)
  if (tier === 'interpreter') vcpu.guest.processor.blocks.hotness = 0
  return vcpu
}
