/** Memory back from guests: by their balloons, by sharing equal pages, by swapping, and by a policy over these. */
export { default } from './plugin.ts'
export { MemoryPolicy, type PolicyOptions } from './policy/policy.ts'
export type { Taken, Technique } from './technique.ts'
export { Member } from './member.ts'
export { Ballooning } from './balloon/balloon.ts'
export { Sharing, type ShareOptions } from './share/share.ts'
export { Swapping, type SwapOptions } from './swap/swap.ts'
