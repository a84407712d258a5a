/** The port by which a command's streams reach the guest's agent: what the configuration needs for it. */

import { AGENT_PORT } from '@nonroot/image'
import type { StackConfig } from '@nonroot/hypervisor'
import { appended } from './appended.ts'
import { VIRTIO } from './network-plan.ts'

/**
 * The back end of the port, and what adds the port to the configuration, as after `--set`; nothing where the stack has no virtio. A run that is to repeat has none either: what comes by the port comes when it
 * comes, while the console's input has its place in the guest's time.
 */
export function planAgent({ machine, stack, devices }: StackConfig): { set: string; port: string } | undefined {
  if (machine.clock === 'deterministic' || !stack.io.some(({ use }) => use === VIRTIO)) return undefined
  const device = { kind: 'virtio-console', ports: [{ name: AGENT_PORT, backend: AGENT_PORT }] }
  return { set: appended('devices', devices, device), port: AGENT_PORT }
}
