/** The port by which the guest's agent is reached: the device that the machine gets for it. */

import { AGENT_PORT } from '@nonroot/image'
import type { StackConfig } from '@nonroot/hypervisor'
import { hasVirtio, isVirtio } from './attached.ts'

export interface AgentPlan {
  readonly device: object
  /** The console back end of its port. */
  readonly backend: string
}

/**
 * Why not, in words, where the stack has no virtio, which other `added` devices may bring. A run that is to repeat has no agent either: what comes by the port comes when it
 * comes, while the console's input has its place in the guest's time.
 */
export function planAgent(backend: string, config: StackConfig, added: readonly object[]): AgentPlan | string {
  if (config.machine.clock === 'deterministic') return 'its clock is deterministic'
  if (!hasVirtio(config) && !added.some(isVirtio)) return 'its stack has no virtio devices'
  return { device: { kind: 'virtio-console', ports: [{ name: AGENT_PORT, backend }] }, backend }
}
