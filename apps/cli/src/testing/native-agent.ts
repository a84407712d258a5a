/** The guest's agent as a process of this machine: what a command in a guest sees, without a guest. Not part of the package. */

import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { agentProgram } from '@nonroot/image'
import { GuestAgent } from '../run/guest-agent.ts'

/** It is a program for Linux on x86-64. */
export const canRunAgent = process.platform === 'linux' && process.arch === 'x64'

export interface NativeAgent {
  readonly agent: GuestAgent
  /** Starts, as a guest does at its boot. Resolves with the agent's exit status. */
  start(): Promise<number | null>
  /** Ends it without a word, and takes its file away. */
  remove(): void
}

/** Its commands run in `folder`. */
export function nativeAgent(folder: string = tmpdir()): NativeAgent {
  const home = mkdtempSync(join(tmpdir(), 'nonroot-agent-'))
  const file = join(home, 'agent')
  writeFileSync(file, agentProgram(), { mode: 0o755 })
  let child: ChildProcess | undefined
  let port: Socket | undefined
  const agent = new GuestAgent((bytes) => void port?.write(bytes))
  return {
    agent,
    start() {
      child?.kill('SIGKILL')
      const started = (child = spawn(file, ['3'], {
        stdio: ['ignore', 'inherit', 'inherit', 'pipe'],
        env: { PATH: process.env['PATH'], HOME: folder },
      }))
      port = started.stdio[3] as Socket
      port.on('error', () => {})
      port.on('data', (bytes) => agent.client.receive(bytes))
      return new Promise((resolve) => started.on('exit', resolve))
    },
    remove() {
      child?.kill('SIGKILL')
      rmSync(home, { recursive: true, force: true })
    },
  }
}
