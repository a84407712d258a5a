/** What the workspace's own checks share: its packages, and running commands. */

import { spawn } from 'node:child_process'
import { existsSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('..', import.meta.url))

export interface WorkspacePackage {
  readonly name: string
  readonly folder: string
  readonly manifest: Readonly<Record<string, unknown>> & { readonly dependencies?: Readonly<Record<string, string>> }
}

/** All packages that hold something: a package exists once it does. */
export function packages(): WorkspacePackage[] {
  return ['packages', 'apps'].flatMap((parent) =>
    readdirSync(join(root, parent))
      .map((name) => join(root, parent, name))
      .filter((folder) => existsSync(join(folder, 'package.json')) && existsSync(join(folder, 'src/index.ts')))
      .map((folder) => {
        const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as WorkspacePackage['manifest']
        return { name: String(manifest['name']), folder, manifest }
      }),
  )
}

export interface CommandResult {
  readonly status: number | null
  readonly out: string
  readonly err: string
}

/** Runs a command with the workspace's own tools first on its PATH. */
export function command(
  name: string,
  args: readonly string[],
  cwd = root,
  env: NodeJS.ProcessEnv = {},
): Promise<CommandResult> {
  return new Promise((resolve, reject) => {
    const PATH = `${join(root, 'node_modules/.bin')}:${process.env['PATH']}`
    const child = spawn(name, args, {
      cwd,
      env: { ...process.env, NX_DAEMON: 'false', ...env, PATH },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    let [out, err] = ['', '']
    child.stdout.on('data', (chunk) => (out += chunk))
    child.stderr.on('data', (chunk) => (err += chunk))
    child.on('error', reject)
    child.on('close', (status) => resolve({ status, out, err }))
  })
}
