/** A person at the guest's console, for tests: waits for words, types, runs commands in a shell. Not part of the package. */

import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { command } from './cli.ts'

export interface ShellResult {
  readonly status: number
  readonly out: string
}

export class GuestConsole {
  /** All that came, standard error of the command included. */
  log = ''
  readonly #child: ChildProcess
  readonly #ended: Promise<number | null>
  #seen = 0
  #wake = (): void => {}

  /** `nonroot ARGV`. */
  constructor(argv: readonly string[], env: NodeJS.ProcessEnv = {}) {
    this.#child = spawn(command[0]!, [...command.slice(1), ...argv], { env: { ...process.env, ...env }, stdio: 'pipe' })
    for (const stream of [this.#child.stdout!, this.#child.stderr!]) {
      stream.on('data', (chunk: Buffer) => {
        this.log += chunk.toString('latin1')
        this.#wake()
      })
    }
    this.#ended = new Promise((resolve) => {
      this.#child.on('close', (status) => {
        resolve(status)
        this.#wake()
      })
    })
  }

  /** Waits for words that have not been waited past yet; gives what came before and with them. */
  async expect(pattern: RegExp, seconds: number): Promise<string> {
    const deadline = Date.now() + seconds * 1000
    for (;;) {
      const fresh = this.log.slice(this.#seen)
      const match = pattern.exec(fresh)
      if (match) {
        const end = match.index + match[0].length
        this.#seen += end
        return fresh.slice(0, end)
      }
      const left = deadline - Date.now()
      const gone = this.#child.exitCode !== null || this.#child.signalCode !== null
      if (left <= 0 || gone)
        throw new Error(
          `${gone ? 'the run ended' : `${seconds} s passed`} before ${pattern}; the last of the console:\n${this.log.slice(-3000)}`,
        )
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, Math.min(left, 1000))
        this.#wake = () => (clearTimeout(timer), resolve())
      })
    }
  }

  type(text: string): void {
    this.#child.stdin!.write(text)
  }

  /** Logs in as root, without a password, and makes the shell and the kernel quiet: what comes is what commands say. */
  async logIn(seconds: number): Promise<void> {
    await this.expect(/login: /, seconds)
    this.type('root\n')
    await this.expect(/# /, seconds)
    this.type(
      "stty -echo; bind 'set enable-bracketed-paste off' 2>/dev/null; PS1=; PS2=; PROMPT_COMMAND=; dmesg --console-off; echo READY$((6*7))\n",
    )
    await this.expect(/READY42\r?\n/, seconds)
  }

  async shell(command: string, seconds = 300): Promise<ShellResult> {
    this.type(`{ ${command}\n} 2>&1; echo "<status $?>"\n`)
    const said = await this.expect(/<status \d+>\r?\n/, seconds)
    const [, out = '', status] = /^([^]*)<status (\d+)>\r?\n$/.exec(said.replaceAll('\r\n', '\n'))!
    return { status: Number(status), out }
  }

  /** As if the host's power had failed: nothing is written any more. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL')
    await this.#ended
  }

  async end(): Promise<number | null> {
    return this.#ended
  }
}
