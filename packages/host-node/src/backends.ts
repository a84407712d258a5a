/** The usual back ends of a Node process: raw disk files, its terminal, its random numbers, its files. */

import { randomFillSync } from 'node:crypto'
import { existsSync, readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { NonrootError } from '@nonroot/contracts'
import type { BackendKinds, HostBackends, HostNetwork, NetworkBackend, NetworkRequest } from '@nonroot/contracts'
import { openBlock } from './block.ts'
import type { BlockParts } from './block.ts'
import { openCodeFolder } from './code-memory.ts'
import { openStreamConsole } from './console.ts'
import { openFolder } from './folder.ts'
import { openForReading } from './opened-file.ts'
import { connectStream, openSockets } from './sockets.ts'
import { openSwap } from './swap.ts'
import { createNodeThreads } from './threads.ts'

type Openers = {
  [K in keyof BackendKinds]?: (request: BackendKinds[K]['request']) => Promise<BackendKinds[K]['backend']>
}

/** What opens networks over a host's own. `@nonroot/network` has one. */
export interface NetworkParts {
  openNetwork(request: NetworkRequest, host: HostNetwork): Promise<NetworkBackend>
}

export interface NodeBackendsOptions {
  /** Paths are relative to it. */
  readonly folder?: string
  /** Disk formats beyond raw, and disks in memory: those of `@nonroot/image` (`diskParts`), or what loads them for the first disk. */
  readonly block?: BlockParts | (() => Promise<BlockParts>)
  /** Networks: those of `@nonroot/network`, or what loads them for the first card. Absent: the host has none. */
  readonly network?: NetworkParts | (() => Promise<NetworkParts>)
  /** In place of the usual ones. */
  readonly openers?: Openers
  /** Folder, ending in `/`, of files that were made with the build (`HostBackends.prebuilt`). */
  readonly prebuilt?: URL
  /** Folder in which compiled guest code is remembered from run to run (`openCodeFolder`), relative to `folder`. It is made if it is not there. */
  readonly codeFolder?: string
}

export function createNodeBackends(options: NodeBackendsOptions = {}): HostBackends {
  const { block, network } = options
  const path = (name: string): string => resolve(options.folder ?? process.cwd(), name)
  const openers: Openers = {
    block: async (request) => openBlock(request, path, typeof block === 'function' ? await block() : block),
    console: async () => openStreamConsole(),
    entropy: async () => ({ fill: (into) => void randomFillSync(into) }),
    folder: ({ path: shared, readOnly }) => openFolder(path(shared), readOnly),
    sockets: ({ path: socket }) => openSockets(path(socket)),
    stream: ({ path: socket }) => connectStream(path(socket)),
    swap: async ({ file, size }) => openSwap(file === undefined ? undefined : path(file), size),
    files: async () => ({
      readFile: async (name) => readFile(path(name)),
      openFile: async (name) => openForReading(path(name)),
      resolve: path,
    }),
    ...(network && {
      network: async (request) => {
        const { createHostNetwork } = await import('./host-network.ts')
        const parts = typeof network === 'function' ? await network() : network
        const folder = request.folder ?? '.'
        return parts.openNetwork(
          request,
          createHostNetwork((name) => path(resolve(folder, name))),
        )
      },
    }),
    ...options.openers,
  }
  return {
    threads: createNodeThreads(),
    prebuilt: options.prebuilt && findIn(options.prebuilt),
    openCodeMemory: options.codeFolder === undefined ? undefined : openCodeFolder(path(options.codeFolder)),
    open(kind, request) {
      const opener = openers[kind]
      if (opener) return opener(request)
      return Promise.reject(
        new NonrootError({
          code: 'host.backend',
          message: `this host has no ${kind} back end`,
          thing: kind,
          value: request,
          remedy: `it has ${Object.keys(openers).join(', ')}`,
        }),
      )
    },
  }
}

function findIn(folder: URL): HostBackends['prebuilt'] {
  return (name) => {
    const file = fileURLToPath(new URL(name, folder))
    return existsSync(file) ? readFileSync(file) : undefined
  }
}
