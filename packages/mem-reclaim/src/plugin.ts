/** What this package adds to a stack. */

import { API_VERSION, definePlugin, defineReclaim, NonrootError } from '@nonroot/contracts'
import type { HostContext, HostMemory, Metrics, SwapBackend } from '@nonroot/contracts'
import { Ballooning } from './balloon/balloon.ts'
import { balloonOptions, policyOptions, shareOptions, swapOptions } from './options.ts'
import type { SwapChoice } from './options.ts'
import { MemoryPolicy } from './policy/policy.ts'
import { Sharing } from './share/share.ts'
import { Swapping } from './swap/swap.ts'
import { Unplugging } from './unplug/unplug.ts'

const BALLOON = ['virtio-balloon'] as const

function openSwap({ openSwap: open }: HostContext, { file, size }: SwapChoice): Promise<SwapBackend> {
  if (open) return open(file === undefined ? {} : { file, size })
  throw new NonrootError({
    code: 'host.backend',
    message: 'this host has no swap back end',
    thing: 'swap',
    remedy: 'name the techniques without swap: techniques: [balloon, share]',
  })
}

export default definePlugin({
  name: '@nonroot/mem-reclaim',
  apiVersion: API_VERSION,
  strategies: [
    defineReclaim({
      name: 'policy',
      summary: 'balloon, sharing and swapping under one policy: shares, minimums, idle tax',
      options: policyOptions,
      brings: BALLOON,
      create: async (options, context) => {
        const swap = options.techniques.includes('swap') ? await openSwap(context, options.swap) : undefined
        const makers = {
          unplug: (_host: HostMemory, metrics: Metrics) => new Unplugging(metrics),
          balloon: (_host: HostMemory, metrics: Metrics) => new Ballooning(metrics),
          share: (host: HostMemory, metrics: Metrics) => new Sharing(host, metrics, options.share),
          swap: (host: HostMemory, metrics: Metrics) => new Swapping(host, swap!, metrics, options.swap),
        }
        return new MemoryPolicy(
          (host, metrics) => options.techniques.map((name) => makers[name](host, metrics)),
          options,
        )
      },
    }),
    defineReclaim({
      name: 'balloon',
      summary: 'guests give back what they can do without, as their statistics say',
      options: balloonOptions,
      brings: BALLOON,
      create: (options) => new MemoryPolicy((_host, metrics) => [new Ballooning(metrics)], options),
    }),
    defineReclaim({
      name: 'unplug',
      summary: 'guests give whole blocks of a memory device (virtio-mem) that they can empty',
      options: balloonOptions,
      // For its statistics.
      brings: BALLOON,
      create: (options) => new MemoryPolicy((_host, metrics) => [new Unplugging(metrics)], options),
    }),
    defineReclaim({
      name: 'share',
      summary: 'pages of the same content share a frame, within a group of VMs',
      options: shareOptions,
      create: (options) => new MemoryPolicy((host, metrics) => [new Sharing(host, metrics, options)], options),
    }),
    defineReclaim({
      name: 'swap',
      summary: 'idle pages are compressed in memory, then written to an encrypted file',
      options: swapOptions,
      create: async (options, context) => {
        const swap = await openSwap(context, options)
        return new MemoryPolicy((host, metrics) => [new Swapping(host, swap, metrics, options)], options)
      },
    }),
  ],
})
