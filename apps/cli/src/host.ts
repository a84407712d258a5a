/** This process as a host: where packages and files come from. */

import { fileURLToPath } from 'node:url'
import type { ModuleSource } from '@nonroot/contracts'
import { createNodeModuleSource } from '@nonroot/host-node'

/** How long a plugin may take to load; NONROOT_PLUGIN_TIMEOUT (seconds) changes it. */
export const loadLimitMs = (): number | undefined => {
  const seconds = Number(process.env['NONROOT_PLUGIN_TIMEOUT'])
  return seconds > 0 ? seconds * 1000 : undefined
}

export const moduleSource = (): ModuleSource =>
  createNodeModuleSource({ installation: fileURLToPath(new URL('.', import.meta.url)) })

/** The stack that is run when none is named. */
export const defaultStack = (): string => fileURLToPath(new URL('../stacks/kvm-like.yaml', import.meta.url))
