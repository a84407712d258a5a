/** Guest code on memory that is shared and swapped beneath it: small guests of 32-bit code, on each paging strategy. */

import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { FRAME_SIZE } from '@nonroot/contracts'
import type { Hpa, ReclaimPolicy, ReclaimSubject } from '@nonroot/contracts'
import { createNodeBackends, createNodeModuleSource } from '@nonroot/host-node'
import { createHypervisor, hostMemoryFor, loadStack } from '@nonroot/hypervisor'
import type { Hypervisor, Stack } from '@nonroot/hypervisor'
import { afterAll, describe, expect, it } from 'vitest'
import { Code, multibootGuest } from '../testing/guests.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-reclaim-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const source = createNodeModuleSource()

async function stackOf(change: object): Promise<Stack> {
  const file = join(folder, `${Math.random()}.yaml`)
  const base = join(import.meta.dirname, '../../../../stacks/kvm-like.yaml')
  const boot = { multiboot: { kernel: './guest' } }
  writeFileSync(file, JSON.stringify({ apiVersion: 'nonroot/v1', extends: base, boot, ...change }))
  return loadStack(file, { source })
}

describe('a stack with reclaim', () => {
  it('has all three techniques, and each VM its balloon', async () => {
    const stack = await stackOf({ stack: { reclaim: [{ use: '@nonroot/mem-reclaim' }] } })
    expect(stack.reclaim.map(({ definition }) => definition.name)).toEqual(['policy'])
    expect(stack.devices.map(({ name, definition }) => `${name} ${definition.kind}`)).toEqual([
      'virtio-balloon0 virtio-balloon',
    ])
  })

  it.each<[string, object, string[]]>([
    ['has a balloon already', { devices: [{ kind: 'virtio-balloon', name: 'own' }] }, ['own']],
    [
      'has no virtio',
      { stack: { reclaim: [{ use: '@nonroot/mem-reclaim' }], io: [{ use: '@nonroot/io-emulated' }] } },
      [],
    ],
    ['only shares', { stack: { reclaim: [{ use: '@nonroot/mem-reclaim', policy: 'share' }] } }, []],
  ])('brings none where the machine %s', async (_, change, names) => {
    const stack = await stackOf({ stack: { reclaim: [{ use: '@nonroot/mem-reclaim' }] }, ...change })
    expect(stack.devices.map(({ name }) => name)).toEqual(names)
  })
})

const bytes = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff)
/** `mov eax, value; mov [address], eax` */
const store = (address: number, value: number): number[] => [0xb8, ...bytes(value), 0xa3, ...bytes(address)]
/** Waits until the host has written to this address. */
const wait = (address: number): number[] => [0x83, 0x3d, ...bytes(address), 0x00, 0x74, 0xf7]
const exit = (status: number): number[] => Code.exit(status)
/** Ends with status 1 unless the word at the address is the value. */
const check = (address: number, value: number): number[] => [
  ...[0x81, 0x3d, ...bytes(address), ...bytes(value)],
  ...[0x74, exit(1).length],
  ...exit(1),
]

const PAGE = 0x20_0000
const FLAG = 0x30_0000
const CODE = 0x40_0000
/** `mov esp, 0x60_0000` */
const STACK = [0xbc, ...bytes(0x60_0000)]
/** A function on a page of its own: `mov eax, value; ret`. */
const functionAt = (address: number, value: number): number[] => [
  ...store(address, (0xb8 | (value << 8)) >>> 0),
  ...store(address + 4, (value >>> 24) | (0xc3 << 8)),
]
const call = (address: number): number[] => [0xbb, ...bytes(address), 0xff, 0xd3]
/** Calls it often enough that it is compiled: `mov esi, n; again: call ebx; dec esi; jnz again`. */
const callOften = (address: number): number[] => [
  ...[0xbb, ...bytes(address), 0xbe, ...bytes(20_000)],
  ...[0xff, 0xd3, 0x4e, 0x75, 0xfb],
]
/** Ends with status 2 unless eax is the value. */
const checkResult = (value: number): number[] => [0x3d, ...bytes(value), 0x74, exit(2).length, ...exit(2)]

/** A guest's 32-bit paging: its directory maps 4 MiB pages one to one, but for one table at `table` that maps one page elsewhere. */
const pagingOn = (directory: number): number[] => [
  ...[0x0f, 0x20, 0xe0, 0x83, 0xc8, 0x10, 0x0f, 0x22, 0xe0],
  ...[0xb8, ...bytes(directory), 0x0f, 0x22, 0xd8],
  ...[0x0f, 0x20, 0xc0, 0x0d, ...bytes(0x8000_0000), 0x0f, 0x22, 0xc0],
]

interface Machines {
  readonly hypervisor: Hypervisor
  readonly subjects: ReclaimSubject[]
  readonly policy: ReclaimPolicy
}

/** Two VMs of a group that run the guest. `meet` is called when both have raised their flag; then the flag is lowered at both. */
async function run(
  paging: string,
  reclaim: object,
  code: readonly number[],
  meet: (machines: Machines) => Promise<void>,
) {
  const loaded = await stackOf({
    stack: {
      reclaim: [{ use: '@nonroot/mem-reclaim', ...reclaim }],
      cpu: { use: '@nonroot/cpu-vmx', codeCacheMiB: 4 },
      paging: { use: '@nonroot/mmu', strategy: paging },
    },
    machine: { memory: '16 MiB' },
  })
  // The policy is asked when the test says, and its subjects are seen.
  const subjects: ReclaimSubject[] = []
  let policy!: ReclaimPolicy
  const [layer] = loaded.reclaim
  const definition = {
    ...layer!.definition,
    create: async (options: never, context: never) => {
      policy = await layer!.definition.create(options, context)
      const { addSubject, sample } = policy
      policy.addSubject = (subject) => {
        subjects.push(subject)
        addSubject.call(policy, subject)
      }
      policy.sample = (pressure, nowNs) => void (nowNs < 0 && sample?.call(policy, pressure, -nowNs))
      return policy
    },
  }
  const patched = { ...layer!, definition } as typeof layer & object
  const stack = {
    ...loaded,
    reclaim: [patched],
    layers: loaded.layers.map((one) => (one === (layer as never) ? (patched as never) : one)),
  }
  const hostMemory = hostMemoryFor(stack.config, [stack.config, stack.config])
  const hypervisor = await createHypervisor(stack, { backends: createNodeBackends(), hostMemory })
  const image = { kernel: multibootGuest([...STACK, ...code]) }
  const vms = [
    await hypervisor.createVm({ image, reclaim: { group: 'a' } }),
    await hypervisor.createVm({ image, reclaim: { group: 'a' } }),
  ]
  const ends = vms.map((vm) => vm.run())
  const raised = (subject: ReclaimSubject): boolean => {
    const at = subject.frames.peek(FLAG)
    return at !== undefined && hypervisor.hostMemory.view.getUint32(at, true) === 1
  }
  for (let turn = 0; turn < 4000 && !subjects.every(raised); turn++)
    await new Promise((resolve) => setTimeout(resolve, 5))
  expect(subjects.map(raised)).toEqual([true, true])
  await meet({ hypervisor, subjects, policy })
  for (const { frames } of subjects) {
    const at = frames.translate(FLAG + 4, 'write') as number
    hypervisor.hostMemory.view.setUint32(at, 1, true)
  }
  const results = await Promise.all(ends)
  await hypervisor.dispose()
  return { results }
}

const stateOf = (subject: ReclaimSubject, address: number): string => subject.frames.state(address)!.kind

/** Passes of the scan over all pages, with each the time of a second. */
function scan({ policy, hypervisor }: Machines, passes = 3): void {
  const { guestFrames, freeGuestFrames } = hypervisor.hostMemory
  const pressure = { wantedFrames: 0, freeFrames: freeGuestFrames, totalFrames: guestFrames, reservedFrames: 0 }
  for (let pass = 1; pass <= 2 * passes; pass++) policy.sample!(pressure, -pass * 1e9)
}

const SHARE = { policy: 'share', pagesPerSecond: 1_000_000 }
const flagged = [...store(FLAG, 1), ...wait(FLAG + 4)]
const ok = { state: 'exited', status: 33 }

describe.each(['ept', 'shadow'])('beneath %s', { timeout: 120_000 }, (paging) => {
  it('a merged page is copied when a guest writes it, and the other does not see it', async () => {
    const code = [
      ...store(PAGE, 0x1234_5678),
      ...flagged,
      ...check(PAGE, 0x1234_5678),
      ...store(PAGE + 8, 77),
      ...check(PAGE + 8, 77),
      ...check(PAGE, 0x1234_5678),
      ...exit(33),
    ]
    const { results } = await run(paging, SHARE, code, async (machines) => {
      scan(machines)
      const [one, two] = machines.subjects
      expect([stateOf(one!, PAGE), one!.frames.peek(PAGE)]).toEqual(['shared', two!.frames.peek(PAGE)])
    })
    expect(results).toEqual([ok, ok])
  })

  it('merged code runs on, and changed code is the new one', async () => {
    const code = [
      ...functionAt(CODE, 1000),
      ...callOften(CODE),
      ...flagged,
      ...call(CODE),
      ...checkResult(1000),
      ...callOften(CODE),
      ...functionAt(CODE, 2000),
      ...call(CODE),
      ...checkResult(2000),
      ...callOften(CODE),
      ...checkResult(2000),
      ...exit(33),
    ]
    const { results } = await run(paging, SHARE, code, async (machines) => {
      scan(machines)
      expect(machines.subjects.map((subject) => stateOf(subject, CODE))).toEqual(['shared', 'shared'])
    })
    expect(results).toEqual([ok, ok])
  })

  it('a merged page table is walked, and takes the accessed and dirty flags of its own guest only', async () => {
    const [directory, table] = [0x50_0000, 0x51_0000]
    const code = [
      // 4 MiB pages one to one, and 0x0080_0000 by the table: its first page is PAGE.
      ...store(directory, 0x83),
      ...store(directory + 4, 0x40_0083),
      ...store(directory + 8, table | 3),
      ...store(table, PAGE | 3),
      ...store(PAGE, 4711),
      ...flagged,
      ...pagingOn(directory),
      ...check(0x80_0000, 4711),
      // Accessed, not dirty; then both.
      ...check(table, PAGE | 0x23),
      ...store(0x80_0000, 815),
      ...check(table, PAGE | 0x63),
      ...check(PAGE, 815),
      ...exit(33),
    ]
    const { results } = await run(paging, SHARE, code, async (machines) => {
      scan(machines)
      for (const address of [directory, table, PAGE])
        expect(machines.subjects.map((subject) => stateOf(subject, address))).toEqual(['shared', 'shared'])
    })
    expect(results).toEqual([ok, ok])
  })

  it('everything swapped, code, tables and data, comes back as it was', async () => {
    const [directory, table] = [0x50_0000, 0x51_0000]
    const code = [
      ...store(directory, 0x83),
      ...store(directory + 4, 0x40_0083),
      ...store(directory + 8, table | 3),
      ...store(table, PAGE | 3),
      ...store(PAGE, 4711),
      ...functionAt(CODE, 1000),
      ...callOften(CODE),
      ...pagingOn(directory),
      ...flagged,
      ...call(CODE),
      ...checkResult(1000),
      ...check(0x80_0000, 4711),
      ...exit(33),
    ]
    const { results } = await run(
      paging,
      { policy: 'swap', file: `./swap-${paging}`, compressed: 0.001 },
      code,
      async ({ policy, subjects, hypervisor }) => {
        const { guestFrames, freeGuestFrames } = hypervisor.hostMemory
        await policy.onPressure({
          wantedFrames: guestFrames,
          freeFrames: freeGuestFrames,
          totalFrames: guestFrames,
          reservedFrames: 0,
        })
        for (const address of [PAGE, CODE, table])
          expect([address, ...subjects.map((subject) => stateOf(subject, address))]).toEqual([
            address,
            'parked',
            'parked',
          ])
      },
    )
    expect(results).toEqual([ok, ok])
  })

  it('a page that is written at that moment is left alone', async () => {
    // inc dword [PAGE] for ever, until the flag is lowered; then 1 if it ever went back.
    const loop = [0xff, 0x05, ...bytes(PAGE), 0x8b, 0x0d, ...bytes(PAGE), 0x39, 0xd1, 0x72, 0x10, 0x89, 0xca]
    const again = [0x83, 0x3d, ...bytes(FLAG + 4), 0x00]
    const body = [...loop, ...again]
    const code = [...store(FLAG, 1), 0x31, 0xd2, ...body, 0x74, -(body.length + 2) & 0xff, ...exit(33), ...exit(1)]
    const { results } = await run(paging, SHARE, code, async (machines) => {
      for (let round = 0; round < 20; round++) {
        scan(machines, 1)
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    })
    expect(results).toEqual([ok, ok])
  })
})

it('a deterministic guest computes the same with and without pressure', { timeout: 120_000 }, async () => {
  const pages = Array.from({ length: 64 }, (_, page) => PAGE + 0x20_0000 + page * FRAME_SIZE)
  // Goes over all pages often, with each a shared or swapped one again: for ebp = 300: add [page], 1.
  const body = pages.flatMap((page) => [0x83, 0x05, ...bytes(page), 0x01])
  const code = [
    ...[...STACK, 0xbd, ...bytes(300)],
    ...[...body, 0x4d, 0x0f, 0x85, ...bytes(-(body.length + 7))],
    ...pages.flatMap((page) => check(page, 300)),
    ...exit(33),
  ]
  const counts: number[] = []
  let swapped = 0
  for (const isPressed of [false, true]) {
    const stack = await stackOf({
      stack: {
        cpu: { use: '@nonroot/cpu-vmx', codeCacheMiB: 4 },
        reclaim: [
          { use: '@nonroot/mem-reclaim', policy: 'swap', file: `./deterministic-${isPressed}`, compressed: 0.001 },
        ],
      },
      machine: { memory: '16 MiB', clock: 'deterministic' },
      host: { memory: '8 MiB' },
    })
    const hypervisor = await createHypervisor(stack, {
      backends: createNodeBackends(),
      hostMemory: hostMemoryFor(stack.config, [stack.config]),
    })
    const { hostMemory } = hypervisor
    const vm = await hypervisor.createVm({ image: { kernel: multibootGuest(code) } })
    const ended = vm.run()
    // All but a few frames: the guest never has more than some of its pages.
    const taken: Hpa[] = []
    if (isPressed)
      for (let left = hostMemory.freeGuestFrames - 100; left > 0; left--) taken.push(hostMemory.allocateFrame()!)
    expect(await ended).toEqual(ok)
    counts.push(vm.info().vcpus[0]!.instructions)
    swapped = hypervisor.samples().find(({ name }) => name.endsWith('swap.written'))!.value
    await vm.dispose()
    for (const frame of taken) hostMemory.freeFrame(frame)
    await hypervisor.dispose()
  }
  expect(swapped).toBeGreaterThan(10)
  expect(counts[1]).toBe(counts[0])
})
