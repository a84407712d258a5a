/** A kernel of one's own, without Debian: its console, its events, its end. */

import { NonrootError, openVm } from 'nonroot'

const [kernel = 'kernel.elf'] = process.argv.slice(2)
try {
  await using vm = await openVm({ stack: 'kvm-like-shadow', image: { kernel }, set: ['machine.memory=32MiB'], signal: AbortSignal.timeout(60_000) })
  for await (const event of vm.events()) if (event.kind === 'output') process.stdout.write(event.bytes)
  console.log(JSON.stringify(await vm.ended))
} catch (error) {
  if (!(error instanceof NonrootError)) throw error
  console.error(error.describe())
  process.exitCode = error.exitCode
}
