/** examples/slurm on a Slurm of one node that the test starts. Skipped where Debian's slurm-wlm is not installed. */

import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir, userInfo } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { Code, multibootGuest } from '../testing/guests.ts'

const root = fileURLToPath(new URL('../../../../', import.meta.url))
const hasSlurm = ['slurmctld', 'slurmd', 'sbatch'].every((program) => spawnSync(program, ['-V']).error === undefined)
const isBuilt = existsSync(join(root, 'apps/cli/bundle'))
const VMS = process.env['NONROOT_LONG'] ? 20 : 5
const FAILING = 3

let folder: string
let env: NodeJS.ProcessEnv
const daemons: ChildProcess[] = []

const freePort = (): Promise<number> =>
  new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })

/** Without munge: the node is its own only client. */
async function configuration(): Promise<string> {
  const { username } = userInfo()
  const [controller, node] = [await freePort(), await freePort()]
  return `ClusterName=test
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=${controller}
SlurmdPort=${node}
SlurmUser=${username}
SlurmdUser=${username}
AuthType=auth/none
CredType=cred/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SlurmdParameters=config_overrides
ReturnToService=2
StateSaveLocation=${folder}/state
SlurmdSpoolDir=${folder}/spool
SlurmctldPidFile=${folder}/slurmctld.pid
SlurmdPidFile=${folder}/slurmd.pid
SlurmctldLogFile=${folder}/slurmctld.log
SlurmdLogFile=${folder}/slurmd.log
NodeName=localhost NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=all Nodes=localhost Default=YES State=UP
`
}

const slurm = (program: string, ...args: string[]): string => {
  const { status, stdout, stderr } = spawnSync(program, args, { env, cwd: folder, encoding: 'utf8' })
  if (status !== 0) throw new Error(`${program}: ${stderr}`)
  return stdout.trim()
}

describe.skipIf(!hasSlurm || !isBuilt)('an array of VMs on Slurm', () => {
  beforeAll(async () => {
    folder = mkdtempSync(join(tmpdir(), 'nonroot-slurm-'))
    for (const name of ['state', 'spool']) mkdirSync(join(folder, name))
    writeFileSync(join(folder, 'slurm.conf'), await configuration())
    env = { ...process.env, SLURM_CONF: join(folder, 'slurm.conf'), NONROOT: `${process.execPath} ${join(root, 'apps/cli/bin/nonroot.js')}`, RESULTS: join(folder, 'results') }
    daemons.push(spawn('slurmctld', ['-D'], { env, stdio: 'ignore' }), spawn('slurmd', ['-D', '-N', 'localhost'], { env, stdio: 'ignore' }))
    await vi.waitFor(() => expect(slurm('sinfo', '-h', '-o', '%T')).toBe('idle'), { timeout: 60_000, interval: 500 })
  }, 90_000)
  afterAll(async () => {
    for (const daemon of daemons) {
      const ended = new Promise((resolve) => daemon.once('exit', resolve))
      daemon.kill()
      await ended
    }
    rmSync(folder, { recursive: true, force: true })
  })

  it('hands back the output and status of each, one of them a planted failure', { timeout: 1_200_000 }, async () => {
    const runs = Array.from({ length: VMS }, (_, index) => {
      const file = join(folder, `vm ${index}.elf`)
      writeFileSync(file, multibootGuest([Code.print(`I am ${index}\n`), Code.exit(index === FAILING ? 9 : 0)].flat()))
      return `--memory 8M --kernel '${file}'\n`
    })
    writeFileSync(join(folder, 'runs'), runs.join(''))
    const job = slurm('sbatch', '--parsable', `--array=0-${VMS - 1}%2`, join(root, 'examples/slurm/vms.sbatch'), join(folder, 'runs'))
    let most = 0
    await vi.waitFor(
      () => {
        most = Math.max(most, slurm('squeue', '-h', '-r', '-t', 'running').split('\n').filter(Boolean).length)
        expect(slurm('squeue', '-h')).toBe('')
      },
      { timeout: 1_100_000, interval: 500 },
    )
    const result = (index: number, what: string): string => readFileSync(join(folder, 'results', `${index}.${what}`), 'utf8')
    const results = Array.from({ length: VMS }, (_, index) => ({ out: result(index, 'out'), err: result(index, 'err'), status: result(index, 'status') }))
    expect(results).toEqual(Array.from({ length: VMS }, (_, index) => ({ out: `I am ${index}\n`, err: '', status: index === FAILING ? '9\n' : '0\n' })))
    // Slurm has the failure, too.
    expect(slurm('scontrol', 'show', 'job', `${job}_${FAILING}`)).toMatch(/JobState=FAILED[^]*ExitCode=9:0/)
    expect(slurm('scontrol', 'show', 'job', `${job}_0`)).toContain('JobState=COMPLETED')
    expect(most).toBeLessThanOrEqual(2)
  })
})
