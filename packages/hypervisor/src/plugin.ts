/** What the kernel itself offers a stack: its schedulers. */

import { API_VERSION, definePlugin, defineScheduler } from '@nonroot/contracts'
import { z } from 'zod'
import { Credit } from './scheduling/credit.ts'
import { RoundRobin } from './scheduling/round-robin.ts'

const milliseconds = (least: number, most: number) => z.number().min(least).max(most).optional()

export default definePlugin({
  name: '@nonroot/hypervisor',
  apiVersion: API_VERSION,
  strategies: [
    defineScheduler({
      name: 'threads',
      summary: "Each VM in a thread of its own, scheduled by the system; a VM's vCPUs take turns there",
      options: z.strictObject({
        slice: milliseconds(0.1, 100).describe('longest time of one vCPU before the next, in ms (default 1)'),
      }),
      gives: ['threadPerVm'],
      create: (options) => new RoundRobin(options),
    }),
    defineScheduler({
      name: 'round-robin',
      summary: 'Every vCPU in turn, for the same time',
      options: z.strictObject({
        slice: milliseconds(0.1, 100).describe('longest time of one vCPU before the next, in ms (default 1)'),
      }),
      create: (options) => new RoundRobin(options),
    }),
    defineScheduler({
      name: 'credit',
      summary: 'Processor time by weight, with caps; a vCPU that wakes goes first',
      options: z.strictObject({
        slice: milliseconds(0.1, 100).describe('longest time of one vCPU before the next, in ms (default 1)'),
        period: milliseconds(1, 1000).describe('how often time is shared out, in ms (default 30)'),
      }),
      create: (options) => new Credit(options),
    }),
  ],
})
