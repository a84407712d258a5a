/** A host with several Debian VMs under reclaim policies, whose consoles a program reads and writes. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createNodeBackends, createNodeModuleSource, tuneWasm } from '@nonroot/host-node'
import { defineReclaim, noOptions } from '@nonroot/contracts'
import type { ConsoleBackend, ReclaimPolicy, ReclaimSubject } from '@nonroot/contracts'
import { createHypervisor, createLog, hostMemoryFor, loadStack } from '@nonroot/hypervisor'
import type { Hypervisor, StrategyLayer } from '@nonroot/hypervisor'
import { debianImage, DEBIAN_PARAMETERS, diskParts, fileOverlay, guestParameters } from '@nonroot/image'
import { nodeImageHost } from '../apps/cli/src/image-host.ts'
import { cacheFolder } from '../apps/cli/src/run/boot-plan.ts'

/** A terminal whose other end is this program. */
export class Shell implements ConsoleBackend {
  text = ''
  #listeners = new Set<(bytes: Uint8Array) => void>()
  #waiting: { pattern: RegExp; resolve: () => void } | undefined
  write(bytes: Uint8Array): void {
    this.text += Buffer.from(bytes).toString('latin1')
    if (this.#waiting?.pattern.test(this.text)) this.#waiting.resolve()
  }
  onInput(listener: (bytes: Uint8Array) => void): () => void {
    this.#listeners.add(listener)
    return () => void this.#listeners.delete(listener)
  }
  size(): undefined {}
  onResize(): () => void {
    return () => {}
  }
  send(text: string): void {
    for (const listener of this.#listeners) listener(new TextEncoder().encode(text))
  }
  expect(pattern: RegExp): Promise<void> {
    if (pattern.test(this.text)) return Promise.resolve()
    return new Promise((resolve) => (this.#waiting = { pattern, resolve }))
  }
}

export interface ReclaimHostOptions {
  readonly vms: number
  /** MiB of a VM, and of the host. */
  readonly memory: number
  readonly host: number
  /** MiB of each VM's memory device, beside its memory. */
  readonly pluggable?: number
  /** Entries of `stack.reclaim`. */
  readonly reclaim: readonly object[]
  readonly clock: string
  /** The paging strategy; `ept` where absent. */
  readonly paging?: string
  /** Devices of each VM beside those of the stack. */
  readonly devices?: readonly object[]
  /** What the guests run, to power off then. Absent: a shell. */
  readonly command?: readonly string[]
  /** Further kernel parameters. */
  readonly parameters?: readonly string[]
  /** Debian packages that the guests have. */
  readonly include?: readonly string[]
  /** Files that the guests have beside the image's. */
  readonly files?: Readonly<Record<string, Uint8Array>>
}

export interface ReclaimHost {
  readonly hypervisor: Hypervisor
  readonly config: object
  /** By the names of VMs; none without a policy. */
  readonly subjects: ReadonlyMap<string, ReclaimSubject>
  dispose(): Promise<void>
}

export async function startReclaimHost(options: ReclaimHostOptions): Promise<ReclaimHost> {
  tuneWasm()
  const source = createNodeModuleSource()
  const guest = await debianImage(nodeImageHost(), {
    flavour: 'cloud',
    include: options.include ?? [],
    cacheFolder: cacheFolder(),
  })
  const folder = mkdtempSync(join(tmpdir(), 'nonroot-reclaim-'))
  const file = join(folder, 'stack.yaml')
  const { reclaim, pluggable, command } = options
  const { parameters } = guestParameters({ marks: true, ...(command ? { command } : {}) })
  writeFileSync(
    join(folder, 'initrd'),
    Buffer.concat([readFileSync(guest.initrd), ...(options.files ? [fileOverlay(options.files)] : [])]),
  )
  const linux = {
    kernel: guest.vmlinux,
    initrd: join(folder, 'initrd'),
    cmdline: [...DEBIAN_PARAMETERS, 'quiet', ...parameters, ...(pluggable ? ['memhp_default_state=online_movable'] : []), ...(options.parameters ?? [])].join(' '),
  }
  const config = {
    apiVersion: 'nonroot/v1',
    extends: join(import.meta.dirname, '../stacks/kvm-like.yaml'),
    stack: { reclaim, ...(options.paging ? { paging: { use: '@nonroot/mmu', strategy: options.paging } } : {}) },
    machine: {
      ...{ memory: `${options.memory} MiB`, clock: options.clock },
      ...(pluggable ? { pluggable: `${pluggable} MiB` } : {}),
    },
    devices: [...(pluggable ? [{ kind: 'virtio-mem' }] : []), ...(options.devices ?? [])],
    host: { memory: `${options.host} MiB` },
    boot: { linux },
  }
  writeFileSync(file, JSON.stringify(config))
  const loaded = await loadStack(file, { source })
  /** Sees the frames of all VMs, for the count of what is alike. */
  const subjects = new Map<string, ReclaimSubject>()
  const observer: ReclaimPolicy = {
    attach: () => {},
    addSubject: (subject) => void subjects.set(subject.name, subject),
    removeSubject: ({ name }) => void subjects.delete(name),
    onPressure: async () => ({ reclaimedFrames: 0 }),
  }
  const observing = {
    ...{ thing: 'observer', role: 'reclaim', folder, options: {} },
    ...{ location: { file }, package: { name: 'observer', version: '0', folder } },
    definition: defineReclaim({ name: 'observer', summary: '', options: noOptions, create: () => observer }),
  } as unknown as StrategyLayer<'reclaim'>
  const stack = {
    ...loaded,
    reclaim: loaded.reclaim.length > 0 ? [...loaded.reclaim, observing] : [],
    layers: [...loaded.layers, observing as unknown as StrategyLayer],
  }
  const { machine } = stack.config
  const hypervisor = await createHypervisor(stack, {
    hostMemory: hostMemoryFor(
      stack.config,
      Array.from({ length: options.vms }, () => ({ machine })),
    ),
    backends: createNodeBackends({ block: diskParts }),
    resolvePath: (from, path) => source.resolvePath(from, path),
    log: createLog((level, message) => console.error(`${level}: ${message}`), 'warn'),
  })
  return {
    ...{ hypervisor, config, subjects },
    async dispose() {
      await hypervisor.dispose()
      rmSync(folder, { recursive: true })
    },
  }
}
