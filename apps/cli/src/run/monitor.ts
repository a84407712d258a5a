/** The monitor (Ctrl-A C): inspects and controls the VM. The guest continues to run; its output is held. */

import { formatSize } from '@nonroot/contracts'
import type { VmInfo } from '@nonroot/hypervisor'
import { statsText, timeText } from './stats.ts'
import type { VmHandle } from './vm-handle.ts'

const PROMPT = '(nonroot) '

export interface MonitorPorts {
  readonly vm: Pick<VmHandle, 'request'>
  /** To the terminal. Lines end in `\n`. */
  print(text: string): void
  quit(): void
  /** The prompt is gone: the terminal is the guest's again. */
  closed(): void
}

interface MonitorCommand {
  readonly help: string
  /** True: leave the prompt. */
  readonly run: (ports: MonitorPorts) => Promise<boolean | void> | boolean | void
}

const COMMANDS: Readonly<Record<string, MonitorCommand>> = {
  info: {
    help: 'the VM, its vCPUs, memory and devices',
    run: async ({ vm, print }) => {
      const info = await vm.request('info')
      print(info ? infoText(info) : 'the VM is still being made\n')
    },
  },
  stats: {
    help: 'exits by reason, and all that is counted',
    run: async ({ vm, print }) => print(statsText((await vm.request('stats')) ?? [])),
  },
  pause: { help: 'guest and its time stand still', run: async ({ vm }) => void (await vm.request('pause')) },
  resume: { help: 'go on after pause', run: async ({ vm }) => void (await vm.request('resume')) },
  reset: { help: 'the reset button', run: async ({ vm }) => void (await vm.request('reset')) },
  power: {
    help: 'the power button: asks the guest to shut down',
    run: async ({ vm, print }) => {
      if (!(await vm.request('powerButton'))) print('the guest does not listen to the power button\n')
    },
  },
  plug: { help: 'plug the network cards in', run: (ports) => plug(ports, true) },
  unplug: { help: 'pull the cables of the network cards', run: (ports) => plug(ports, false) },
  continue: { help: 'back to the guest (so does Ctrl-A C)', run: () => true },
  quit: { help: 'end the VM', run: ({ quit }) => (quit(), true) },
  help: { help: 'this list', run: ({ print }) => print(helpText()) },
}

async function plug({ vm, print }: MonitorPorts, on: boolean): Promise<void> {
  if (!(await vm.request('plug', { on }))) print('there is no network card\n')
}

const helpText = (): string =>
  Object.entries(COMMANDS)
    .map(([name, { help }]) => `  ${name.padEnd(10)}${help}\n`)
    .join('')

export class Monitor {
  readonly #ports: MonitorPorts
  readonly #decoder = new TextDecoder()
  #line = ''
  #busy: Promise<void> = Promise.resolve()
  open = false

  constructor(ports: MonitorPorts) {
    this.#ports = ports
  }

  toggle(): void {
    this.open = !this.open
    if (!this.open) return this.#close()
    this.#line = ''
    this.#ports.print(`\n${PROMPT}`)
  }

  #close(): void {
    this.open = false
    this.#ports.print('\n')
    this.#ports.closed()
  }

  /** Keys while it is open. */
  feed(bytes: Uint8Array): void {
    for (const key of this.#decoder.decode(bytes, { stream: true })) {
      if (!this.open) return
      if (key === '\r' || key === '\n') {
        this.#ports.print('\n')
        const line = this.#line.trim()
        this.#line = ''
        // One after the other.
        this.#busy = this.#busy.then(() => this.#run(line))
      } else if (key === '\x7f' || key === '\b') {
        if (this.#line) this.#ports.print('\b \b')
        this.#line = this.#line.slice(0, -1)
      } else if (key === '\x03' || key === '\x04') this.#close()
      else if (key >= ' ') {
        this.#line += key
        this.#ports.print(key)
      }
    }
  }

  async #run(line: string): Promise<void> {
    const { print } = this.#ports
    const names = Object.keys(COMMANDS).filter((name) => name.startsWith(line))
    const name = names.includes(line) ? line : names.length === 1 ? names[0] : undefined
    if (line === '') return print(PROMPT)
    if (name === undefined) print(`there is no "${line}"; help lists what there is\n`)
    else if (await COMMANDS[name]!.run(this.#ports)) return this.#close()
    if (this.open) print(PROMPT)
  }
}

export function infoText({ name, state, clock, guestNs, memory, vcpus, devices, placed }: VmInfo): string {
  const hex = (value: bigint | number): string => `0x${value.toString(16)}`
  return [
    `${name}: ${state}, ${timeText(guestNs)} of guest time (${clock} clock)`,
    `memory: ${formatSize(memory.size)}, of which ${formatSize(memory.residentFrames * 4096)} hold something`,
    ...vcpus.map(
      ({ rip, activity, instructions }, index) =>
        `vcpu${index}: ${activity} at ${hex(rip)}, ${instructions.toLocaleString('en-US')} instructions`,
    ),
    `devices: ${devices.join(', ')}`,
    ...placed.map(({ what, start, length }) => `placed: ${what} at ${hex(start)}..${hex(start + length)}`),
    '',
  ].join('\n')
}
