/** Version and features of the hypervisor. Texts are padded with zeros to their whole length. (Xen, "public/version.h"; XSA-122) */

import type { Call, Handler } from '../call.ts'
import { EXTRA_VERSION, fail, FEATURES, HVM_FEATURES, VERSION } from '../facts.ts'

const text = (value: string, bytes: number): Uint8Array => {
  const padded = new Uint8Array(bytes)
  padded.set(new TextEncoder().encode(value).subarray(0, bytes - 1))
  return padded
}
const gives =
  (bytes: () => Uint8Array): Handler =>
  (call) =>
    call.write(call.args[1]!, bytes()) ? 0 : fail('EFAULT')

function compileInfo(): Uint8Array {
  const all = new Uint8Array(144)
  let at = 0
  for (const [value, bytes] of [
    ['nonroot', 64],
    ['nonroot', 16],
    ['', 32],
    ['', 32],
  ] as const) {
    all.set(text(value, bytes), at)
    at += bytes
  }
  return all
}
const virtualStart = (): Uint8Array => {
  const view = new DataView(new ArrayBuffer(8))
  view.setBigUint64(0, 0xffff_8000_0000_0000n, true)
  return new Uint8Array(view.buffer)
}

function features(call: Call): number {
  const argument = call.read(call.args[1]!, 8)
  if (!argument) return fail('EFAULT')
  argument.setUint32(4, argument.getUint32(0, true) === 0 ? (call.domain.tables ? FEATURES : HVM_FEATURES) : 0, true)
  return call.write(call.args[1]!, argument) ? 0 : fail('EFAULT')
}

const OPERATIONS: Readonly<Record<number, Handler>> = {
  0: () => VERSION,
  1: gives(() => text(EXTRA_VERSION, 16)),
  2: gives(compileInfo),
  3: gives(() => text('xen-3.0-x86_64 ', 1024)),
  4: gives(() => text('', 64)),
  5: gives(virtualStart),
  6: features,
  7: () => 4096,
  8: gives(() => new Uint8Array(16)),
  9: gives(() => text('', 1024)),
  10: () => fail('ENODATA'),
}

/** (operation, argument). Asking for the version is also how a guest has events delivered that it has unmasked. */
export const xenVersion: Handler = (call) => OPERATIONS[call.u32(0)]?.(call) ?? fail('ENOSYS')

const ASSISTS = new Set([0, 1, 2, 3, 5, 6])

/** (enable or disable, assist). Writable tables are always there, and so is what the others promise a 64-bit guest. */
export const vmAssist: Handler = (call) => {
  const [command, assist] = [call.u32(0), call.u32(1)]
  if (command > 1) return fail('ENOSYS')
  if (!ASSISTS.has(assist)) return fail('EINVAL')
  const { domain } = call
  domain.assists = command === 0 ? domain.assists | (1 << assist) : domain.assists & ~(1 << assist)
  return 0
}
