/** Debian in a program: two commands in a guest of its own. */

import { openVm } from 'nonroot'

await using vm = await openVm({ onProgress: console.error })
const { stdout } = await vm.exec(['uname', '-srm'])
const { status } = await vm.exec(['sh', '-c', 'wc -c; exit 3'], { input: 'any bytes' })
console.log(stdout.trim(), status)
