/** `nonroot attach NAME`: this terminal at the console of a running VM. */

import { connect } from 'node:net'
import { ExitCode } from '@nonroot/contracts'
import { openTerminal } from '@nonroot/host-node'
import type { TerminalSize } from '@nonroot/host-node'
import { findVm, withVm } from '../control/find-vm.ts'
import { resizeCommand } from '../control/vm-commands.ts'
import type { CommandIo } from '../io.ts'
import { EscapeKeys } from '../run/escape-keys.ts'

const HELP = `
Ctrl-A X  leave; the guest runs on
Ctrl-A A  send Ctrl-A to the guest
`

export async function attach(name: string, io: CommandIo): Promise<number> {
  const { sockets, name: vm } = await findVm(name)
  const terminal = openTerminal()
  const socket = connect(sockets.console(vm))
  try {
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
    })
    socket.on('error', () => {})
    const keys = new EscapeKeys((command) => {
      if (command === 'quit') socket.end()
      else io.err(HELP)
    })
    const size = terminal.size()
    if (size) {
      // An older host does not know it, and its guest keeps the size it has.
      const resize = async (to: TerminalSize): Promise<unknown> => withVm(name, (client) => client.execute(resizeCommand, { ...to }))
      await resize(size).catch(() => {})
      terminal.onResize((to) => void resize(to).catch(() => {}))
    }
    if (terminal.interactive) io.err(`the console of ${name}; Ctrl-A X leaves it\n`)
    socket.on('data', (bytes) => terminal.write(bytes, () => {}))
    terminal.onInput((bytes) => void socket.write(terminal.interactive ? keys.filter(bytes) : bytes))
    terminal.onOutputClosed(() => socket.destroy())
    await new Promise<void>((resolve) => socket.on('close', () => resolve()))
    await terminal.drain()
    return ExitCode.ok
  } finally {
    socket.destroy()
    terminal.close()
  }
}
