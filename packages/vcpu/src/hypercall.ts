/** A hypercall, from a CPU mode to the guest ABI. @hot */

import type { GuestAbiVcpu, HypercallResult, X86VcpuPorts } from '@nonroot/contracts'

export function hypercall({ abi, spans }: X86VcpuPorts, vcpu: GuestAbiVcpu): HypercallResult {
  if (spans === undefined) return abi.hypercall(vcpu)
  const started = performance.now()
  const result = abi.hypercall(vcpu)
  spans.span('hypercall', started, performance.now())
  return result
}
