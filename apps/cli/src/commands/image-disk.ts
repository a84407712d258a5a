/** `nonroot image disk`: makes a disk file of a folder or an archive. */

import { ExitCode, formatSize, NonrootError } from '@nonroot/contracts'
import { makeDisk } from '@nonroot/image'
import { nodeImageHost } from '../image-host.ts'
import { json } from '../io.ts'
import type { CommandIo } from '../io.ts'
import { sizeOption } from '../size-option.ts'
import { progressTo } from './image.ts'

export interface ImageDiskOptions {
  readonly from: string
  readonly size: string
  readonly label?: string
  readonly json?: boolean
}

const LONGEST_LABEL = 16

export async function imageDisk(file: string, options: ImageDiskOptions, io: CommandIo): Promise<number> {
  const { from, label = '' } = options
  const size = sizeOption('--size', options.size)
  if (new TextEncoder().encode(label).length > LONGEST_LABEL) {
    throw new NonrootError({
      code: 'usage',
      message: `the label "${label}" has more than ${LONGEST_LABEL} bytes`,
      thing: '--label',
      value: label,
    })
  }
  const { tell, clear } = progressTo(io)
  const made = await makeDisk(nodeImageHost(), { from, to: file, size, label, onProgress: tell }).finally(clear)
  if (options.json) json(io, { file, size, ...made })
  else {
    const percent = Math.round((100 * made.usedBytes) / size)
    io.out(`${file}: ${formatSize(size)}, ${made.files} files, ${percent} % used, UUID ${made.uuid}\n`)
  }
  return ExitCode.ok
}
