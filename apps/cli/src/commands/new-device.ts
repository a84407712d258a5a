/** `nonroot new device`. */

import { existsSync, readdirSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { ExitCode, NonrootError } from '@nonroot/contracts'
import { makeFolder } from '@nonroot/host-node'
import { json } from '../io.ts'
import type { CommandIo } from '../io.ts'
import { deviceTemplate } from '../scaffold/device-template.ts'
import { virtioTemplate } from '../scaffold/virtio-template.ts'
import { version } from '../version.ts'

export async function newDevice(
  name: string,
  options: { dir?: string; virtio?: boolean; json?: boolean },
  io: CommandIo,
): Promise<number> {
  if (!/^(@[a-z0-9][\w.-]*\/)?[a-z][a-z0-9-]*$/.test(name)) {
    throw new NonrootError({
      code: 'usage',
      message: `"${name}" is no name for a package`,
      thing: 'name',
      value: name,
      remedy: 'small letters, digits and hyphens, as in acme-sensor or @acme/sensor',
    })
  }
  const kind = name.replace(/^@(.+)\//, '$1-')
  const folder = resolve(options.dir ?? kind)
  if (existsSync(folder) && readdirSync(folder).length) {
    throw new NonrootError({
      code: 'usage',
      message: `${folder} is there already and not empty`,
      thing: 'dir',
      value: folder,
      remedy: 'choose another with --dir',
    })
  }
  const className = kind.replaceAll(/(?:^|[-.])(\w)/g, (_, letter: string) => letter.toUpperCase())
  const template = options.virtio ? virtioTemplate : deviceTemplate
  const files = template({ name, kind, className, version: version() })
  for (const [path, content] of Object.entries(files)) {
    const file = join(folder, path)
    makeFolder(dirname(file))
    await writeFile(file, content)
  }
  if (options.json) json(io, { name, kind, folder, files: Object.keys(files) })
  else
    io.out(
      `${folder}\n${Object.keys(files)
        .map((path) => `  ${path}\n`)
        .join('')}next: cd ${folder} && npm install && npm test\n`,
    )
  return ExitCode.ok
}
