/** An access that a device could not complete at once: it is made again until the device is ready. */

import { IO_DEFERRED, IO_DEFERRED_64 } from '@nonroot/contracts'
import type { IoBus, IoSize, MmioExit, PortIoExit } from '@nonroot/contracts'

export type DeferredAccess = PortIoExit | MmioExit

/** Makes it again. True: it is done, and the exit has the value that was read. */
export const retryAccess = (io: IoBus, exit: DeferredAccess): boolean =>
  exit.reason === 'portIo' ? retryPort(io, exit) : retryMmio(io, exit)

function retryPort(io: IoBus, exit: PortIoExit): boolean {
  if (exit.write) return io.writePort(exit.port, exit.size, exit.data)
  const value = io.readPort(exit.port, exit.size)
  if (value === IO_DEFERRED) return false
  exit.data = value
  return true
}

function retryMmio(io: IoBus, exit: MmioExit): boolean {
  if (exit.size === 8) {
    if (exit.write) return io.writeMmio64(exit.address, (BigInt(exit.dataHigh) << 32n) | BigInt(exit.data))
    const value = io.readMmio64(exit.address)
    if (value === IO_DEFERRED_64) return false
    exit.data = Number(value & 0xffff_ffffn)
    exit.dataHigh = Number(value >> 32n)
    return true
  }
  const size: IoSize = exit.size
  if (exit.write) return io.writeMmio(exit.address, size, exit.data)
  const value = io.readMmio(exit.address, size)
  if (value === IO_DEFERRED) return false
  exit.data = value
  return true
}
