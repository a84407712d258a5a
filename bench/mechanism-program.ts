/** The program that exercises one mechanism of a kernel, and how often each is worth measuring. */

import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { gzipSync } from 'node:zlib'

export const COUNTS = { syscall: 20_000, fault: 4_000, fork: 200, switch: 2_000, timer: 500 } as const

/** The program, as words of a shell that has base64 and gzip. */
export function program(): string {
  const folder = mkdtempSync(join(tmpdir(), 'mechanisms-'))
  try {
    const file = join(folder, 'mechanisms')
    const flags = [
      '-O2',
      '-static',
      '-nostdlib',
      '-ffreestanding',
      '-fno-stack-protector',
      '-fcf-protection=none',
      '-fno-asynchronous-unwind-tables',
      '-no-pie',
      '-s',
      '-Wl,--build-id=none,-z,noseparate-code',
    ]
    execFileSync('cc', [...flags, '-o', file, fileURLToPath(new URL('mechanisms.c', import.meta.url))])
    return gzipSync(readFileSync(file)).toString('base64')
  } finally {
    rmSync(folder, { recursive: true })
  }
}
