/** Commands of a VM's control socket. Names and answers are QEMU's ("QEMU QMP Reference Manual"); ours begin with `__dev.nonroot_`. */

import { FRAME_SIZE } from '@nonroot/contracts'
import { infoText } from '../run/monitor.ts'
import { checked } from './arguments.ts'
import type { ControlledVm } from './controlled-vm.ts'
import { prometheusText } from './prometheus.ts'
import { QmpError, versionInfo } from './qmp-session.ts'
import type { QmpCommand, QmpCommands } from './qmp-session.ts'
import type { RequestName, Requests } from '../run/protocol.ts'

/** Linux has 16 bits for each (ioctl_tty(2)). */
const MOST_CELLS = 65_535
/** RunState, by ours. */
const STATUS = { creating: 'prelaunch', running: 'running', paused: 'paused', ended: 'shutdown' } as const

export const memoryCommand = '__dev.nonroot_memory'
export const metricsCommand = '__dev.nonroot_metrics'
export const resizeCommand = '__dev.nonroot_resize_console'

export function vmCommands(vm: ControlledVm): QmpCommands {
  const ask = async <R extends RequestName>(what: R, of?: Requests[R]['of']): Promise<Requests[R]['gives']> => {
    const answer = await vm.request(what, of)
    if (answer !== undefined) return answer
    throw new QmpError(vm.state === 'creating' ? 'the VM is still being made' : 'the VM has ended')
  }
  const plain =
    (what: 'pause' | 'resume' | 'reset'): QmpCommand =>
    async (given) => {
      checked(given, {})
      await ask(what)
    }
  const balloon = async (): Promise<{ actual: number }> => {
    const { hasBalloon, maximumFrames, balloonedFrames } = await ask('memory')
    if (!hasBalloon) throw noBalloon()
    return { actual: (maximumFrames - balloonedFrames) * FRAME_SIZE }
  }
  const commands: QmpCommands = {
    'query-version': (given) => (checked(given, {}), versionInfo()),
    'query-name': (given) => (checked(given, {}), { name: vm.name }),
    'query-status': (given) => (checked(given, {}), { status: STATUS[vm.state], running: vm.state === 'running' }),
    async 'query-cpus-fast'(given) {
      checked(given, {})
      const { vcpus } = await ask('info')
      // Which of the process's threads it is the program does not know.
      return vcpus.map((_, index) => ({
        'cpu-index': index,
        'qom-path': `/machine/cpu[${index}]`,
        'thread-id': process.pid,
        target: 'x86_64',
      }))
    },
    stop: plain('pause'),
    cont: plain('resume'),
    system_reset: plain('reset'),
    async system_powerdown(given) {
      checked(given, {})
      if (!(await ask('powerButton'))) throw new QmpError('the guest does not listen to its power button')
    },
    quit(given) {
      checked(given, {})
      // The answer comes first.
      setImmediate(() => vm.stop({ by: 'user' }))
    },
    async balloon(given) {
      const { value } = checked(given, { value: 'integer' })
      if (value <= 0) throw new QmpError("Parameter 'value' expects a size")
      if (!(await ask('requestMemory', Math.floor(value / FRAME_SIZE)))) throw noBalloon()
    },
    'query-balloon': (given) => (checked(given, {}), balloon()),
    async 'query-memory-size-summary'(given) {
      checked(given, {})
      return { 'base-memory': (await ask('memory')).maximumFrames * FRAME_SIZE }
    },
    async 'query-block'(given) {
      checked(given, {})
      return (await ask('disks')).map(({ device, image, readOnly }) => ({
        device,
        type: 'unknown',
        removable: false,
        locked: false,
        inserted: { file: image, ro: readOnly, drv: image.endsWith('.qcow2') ? 'qcow2' : 'raw' },
      }))
    },
    async set_link(given) {
      const { name, up } = checked(given, { name: 'string', up: 'boolean' })
      if ((await ask('plug', { on: up, device: name })) === 0)
        throw new QmpError(`Device '${name}' not found`, 'DeviceNotFound')
    },
    [resizeCommand](given) {
      const { columns, rows } = checked(given, { columns: 'integer', rows: 'integer' })
      for (const [name, value] of Object.entries({ columns, rows }))
        if (value < 1 || value > MOST_CELLS) throw new QmpError(`Parameter '${name}' expects a number from 1 to ${MOST_CELLS}`)
      vm.resizeConsole({ columns, rows })
    },
    [memoryCommand]: (given) => (checked(given, {}), ask('memory')),
    async [metricsCommand](given) {
      checked(given, {})
      return prometheusText([{ labels: { vm: vm.name }, samples: await ask('stats') }])
    },
    async 'human-monitor-command'(given) {
      const { 'command-line': line } = checked(given, { 'command-line': 'string' })
      const word = /^\s*info\s+(\w+)\s*$/.exec(line)?.[1]
      if (word === undefined || !Object.hasOwn(INFO, word)) return `unknown command: '${line.trim()}'\r\n`
      return (await INFO[word]!()).replaceAll(/\r?\n/g, '\r\n')
    },
  }
  /** `info WORD` of the human monitor: what there is to read, in lines. */
  const INFO: Readonly<Record<string, () => Promise<string>>> = {
    async version() {
      const { qemu } = versionInfo()
      return `${qemu.major}.${qemu.minor}.${qemu.micro} (nonroot)\n`
    },
    name: async () => `${vm.name}\n`,
    status: async () => `VM status: ${STATUS[vm.state]}\n`,
    balloon: async () => `balloon: actual=${(await balloon()).actual / 2 ** 20}\n`,
    async cpus() {
      const { vcpus } = await ask('info')
      return vcpus.map(({ activity }, index) => `${index === 0 ? '*' : ' '} CPU #${index}: ${activity}\n`).join('')
    },
    async block() {
      const disks = await ask('disks')
      return disks
        .map(({ device, image, kind, readOnly }) => `${device}: ${image} (${kind}${readOnly ? ', read-only' : ''})\n`)
        .join('')
    },
    vm: async () => infoText(await ask('info')),
  }
  return commands
}

const noBalloon = (): QmpError => new QmpError('No balloon device has been activated', 'DeviceNotActive')
