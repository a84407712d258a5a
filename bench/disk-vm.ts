/**
 * One VM of ours under the disk benchmark: its console on standard output, and after each line of diskbench how many VM exits there were so far. A
 * process of its own, so that its processor time is the VM's.
 *
 *     disk-vm.ts STACK-FILE
 */
import type { ConsoleBackend } from '@nonroot/contracts'
import { createNodeBackends, createNodeModuleSource, tuneWasm } from '@nonroot/host-node'
import { createHypervisor, loadStack } from '@nonroot/hypervisor'
import { diskParts } from '@nonroot/image'

const stackFile = process.argv[2]!
tuneWasm()
const source = createNodeModuleSource()
const stack = await loadStack(stackFile, { source })
const hypervisor = await createHypervisor(stack, {
  backends: createNodeBackends({ block: diskParts }),
  resolvePath: (folder, path) => source.resolvePath(folder, path),
})

/** Exits but for those of the console, which are the benchmark's own. */
function exits(): number {
  const samples = new Map(vm.samples().map(({ name, value }) => [name, value as number]))
  return (samples.get('vcpu0.exits') ?? 0) - (samples.get('device.uart0.accesses') ?? 0)
}

let line = ''
const console: ConsoleBackend = {
  write(bytes) {
    process.stdout.write(bytes)
    line += Buffer.from(bytes).toString('latin1')
    if (!line.includes('\n')) return
    if (line.includes('BENCH')) process.stdout.write(`EXITS ${exits()}\n`)
    line = line.slice(line.lastIndexOf('\n') + 1)
  },
  onInput: () => () => {},
  size: () => undefined,
  onResize: () => () => {},
}
const vm = await hypervisor.createVm({ console })
const end = await vm.run()
process.stdout.write(`ENDED ${JSON.stringify(end)}\n`)
await hypervisor.dispose()
process.exit(0)
