/** Commands as an embedder sees them; the guest's agent is a process of this machine. */

import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { canRunAgent, nativeAgent } from '../testing/native-agent.ts'
import type { NativeAgent } from '../testing/native-agent.ts'
import { execIn, spawnIn } from './guest-process.ts'
import type { ExecOptions } from './guest-process.ts'

let native: NativeAgent
beforeEach(async () => {
  native = nativeAgent()
  void native.start()
  await new Promise<void>((resolve) => native.agent.whenReady(() => resolve()))
})
afterEach(() => native.remove())

const sh = (script: string, options: ExecOptions = {}) => execIn(spawnIn(native.agent, ['sh', '-c', script], options), options)

describe.skipIf(!canRunAgent)('a command of an embedder’s', { timeout: 60_000 }, () => {
  it.each([
    { what: 'gives its status and outputs', script: 'echo out; echo err >&2; exit 7', result: { status: 7, stdout: 'out\n', stderr: 'err\n' } },
    { what: 'has no input', script: 'wc -c', result: { status: 0, stdout: '0\n' } },
    { what: 'has input', script: 'wc -c', options: { input: 'x'.repeat(300_000) }, result: { status: 0, stdout: '300000\n' } },
    { what: 'need not read it', script: 'exit 3', options: { input: 'x'.repeat(300_000) }, result: { status: 3 } },
    { what: 'has an environment', script: 'echo $A', options: { env: { A: 'b=c' } }, result: { stdout: 'b=c\n' } },
    { what: 'has a terminal', script: 'stty size', options: { terminal: { rows: 5, columns: 7 } }, result: { stdout: '5 7\r\n' } },
    { what: 'ends by a signal', script: 'kill -TERM $$', result: { status: 143 } },
  ])('$what', async ({ script, options, result }) => {
    expect(await sh(script, options)).toMatchObject(result)
  })

  it('waits for its reader, who may go away', async () => {
    const process = spawnIn(native.agent, ['sh', '-c', 'yes; echo $? >&2'])
    const reader = process.stdout.getReader()
    let bytes = 0
    while (bytes < 200_000) bytes += (await reader.read()).value!.length
    await reader.cancel()
    process.kill('SIGKILL')
    expect(await process.status).toBe(137)
  })

  it('is ended by an AbortSignal', async () => {
    const controller = new AbortController()
    const running = sh('echo up; sleep 1000', { signal: controller.signal })
    setTimeout(() => controller.abort(new Error('enough')), 100)
    await expect(running).rejects.toThrow('enough')
    await expect(async () => sh('true', { signal: controller.signal })).rejects.toThrow('enough')
    // The guest has it no more: its number of places is unchanged.
    expect(await sh('echo fine')).toMatchObject({ status: 0, stdout: 'fine\n' })
  })

  it('rejects with its guest', async () => {
    const running = sh('sleep 1000')
    native.agent.reset()
    await expect(running).rejects.toMatchObject({ name: 'NonrootError', code: 'guest.crashed', message: 'the guest was restarted before the command had ended' })
  })
})
