/**
 * Records which shapes of instructions guests use: boots what `nonroot run` boots by default, runs commands in it, and writes an example of each
 * shape to packages/x86/common-shapes.txt, from which the bundle has its handlers (tools/bundle.js). Examples that are there stay.
 *
 *     node --conditions=@nonroot/source apps/cli/tools/record-shapes.ts KERNEL INITRD [COMMAND LINE]
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { createNodeBackends, createNodeModuleSource, tuneWasm } from '@nonroot/host-node'
import { diskParts } from '@nonroot/image'
import { createHypervisor, loadStack } from '@nonroot/hypervisor'
import { exampleLine, type Processor } from '@nonroot/x86'
import { decode } from '../../../packages/x86/src/decode/decoder.ts'
import { createInstruction } from '../../../packages/x86/src/decode/instruction.ts'
import { shapeKey } from '../../../packages/x86/src/interpreter/handlers.ts'
import { rows } from '../../../packages/x86/src/rows/index.ts'
import { decodeModeOf } from '../../../packages/x86/src/state/mode.ts'

const [kernel, initrd, cmdline = 'console=ttyS0 panic=-1 quiet'] = process.argv.slice(2)
if (!kernel || !initrd) throw new Error('record-shapes KERNEL INITRD [COMMAND LINE]')
const list = fileURLToPath(new URL('../../../packages/x86/common-shapes.txt', import.meta.url))

tuneWasm()
const source = createNodeModuleSource()
const stack = await loadStack(fileURLToPath(new URL('../../../stacks/kvm-like.yaml', import.meta.url)), {
  source,
  set: ['machine.memory=1 GiB', `boot=${JSON.stringify({ linux: { kernel, initrd, cmdline } })}`],
})
const hypervisor = await createHypervisor(stack, { backends: createNodeBackends({ block: diskParts }) })
let processor: Processor | undefined
const vm = await hypervisor.createVm({
  console: {
    write: (bytes) => void process.stderr.write(bytes),
    onInput: () => () => {},
    size: () => undefined,
    onResize: () => () => {},
  },
  tracer: {
    slice: () => {},
    attach: ({ vcpus }) => (processor = (vcpus[0] as unknown as { processor: Processor }).processor),
  },
})
await vm.run()

const shapes = new Map<string, string>()
function note(bytes: Uint8Array, mode: number): number {
  const instruction = createInstruction(rows[0]!)
  if (decode(bytes, 0, bytes.length, decodeModeOf(mode), instruction) !== 'ok') return bytes.length
  const id = `${instruction.row.id}/${shapeKey(instruction, mode, false)}`
  if (!shapes.has(id)) shapes.set(id, exampleLine(mode, bytes.subarray(0, instruction.length)))
  return instruction.length
}
const before = readFileSync(list, { encoding: 'utf8', flag: 'a+' }).split('\n').filter(Boolean)
for (const line of before) {
  const [mode, code] = line.split(' ')
  note(
    Uint8Array.from(code!.match(/../g)!, (byte) => parseInt(byte, 16)),
    parseInt(mode!, 16),
  )
}
for (const { host, length, mode } of processor!.blocks.live) {
  const end = Math.min(host + length, (host | 0xfff) + 1)
  for (let at = host; at < end;) at += note(processor!.core.u8.slice(at, Math.min(at + 15, end)), mode)
}
writeFileSync(list, `${[...shapes.values()].toSorted().join('\n')}\n`)
console.log(`${shapes.size} shapes, ${shapes.size - before.length} of them new`)
await hypervisor.dispose()
