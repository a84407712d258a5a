/** The plugin definition: what this package adds to a stack. */

import { API_VERSION, defineGuestAbi, definePlugin, noOptions } from '@nonroot/contracts'
import { createBareAbi } from './bare.ts'
import { KvmAbi } from './kvm.ts'
import { kvmOptions } from './options.ts'

export default definePlugin({
  name: '@nonroot/abi-kvm',
  apiVersion: API_VERSION,
  strategies: [
    defineGuestAbi({
      name: 'kvm',
      summary: "KVM's paravirtual interface: kvm-clock, PV EOI, steal time, hypercalls",
      options: kvmOptions,
      create: (options) => new KvmAbi(options),
    }),
    defineGuestAbi({
      name: 'bare',
      summary: 'no hypervisor to be found',
      options: noOptions,
      create: createBareAbi,
    }),
  ],
})
