/** A vfio-user server that a test scripts: answers by the specification's tables, or what the test puts in their place. */

import type { BlockingStream } from '@nonroot/contracts'
import { check, checkSame } from '../check.ts'
import { fieldsOf, RawPeer, readFields, versionBody, VfioUser } from './wire.ts'
import type { VfioMessage } from './wire.ts'

/** A reply's body, an errno, or nothing at all. */
export type MockAnswer = Uint8Array | number | undefined

const TABLE_BAR = 1
const CONFIGURATION = 7
const MSIX = 2
export const MOCK_FUNCTION = {
  vendorId: 0x1b36,
  deviceId: 0x0010,
  classCode: 0x01_0802,
  vectors: 4,
  barSize: 4096,
} as const

export class MockVfioUserServer {
  readonly peer: RawPeer
  /** Commands of the client, in order. */
  readonly requests: VfioMessage[] = []
  /** In place of the answer to a command. */
  readonly answers = new Map<number, (message: VfioMessage) => MockAnswer>()
  readonly configuration = new Uint8Array(256)
  /** Of BAR 0. */
  readonly registers = new Uint8Array(MOCK_FUNCTION.barSize)

  constructor(stream: Pick<BlockingStream, 'handle' | 'write' | 'destroy'>) {
    const { vendorId, deviceId, classCode, vectors } = MOCK_FUNCTION
    this.configuration.set(fieldsOf([2, vendorId], [2, deviceId], [2, 0], [2, 0x10], [1, 3], [1, classCode & 0xff]))
    this.configuration.set(fieldsOf([2, classCode >> 8]), 0x0a)
    this.configuration.set(fieldsOf([2, 0x1af4], [2, 0x1100]), 0x2c)
    this.configuration.set([0x40], 0x34)
    this.configuration.set(fieldsOf([1, 0x11], [1, 0], [2, vectors - 1], [4, TABLE_BAR], [4, 0x800 | TABLE_BAR]), 0x40)
    this.peer = new RawPeer(stream)
    this.peer.onCommand = (message) => this.#serve(message)
  }

  #serve(message: VfioMessage): void {
    this.requests.push(message)
    checkSame(message.flags & ~0x10, 0, `flags of command ${message.command}`)
    checkSame(message.error, 0, `error, which is reserved in command ${message.command}`)
    const scripted = this.answers.get(message.command)
    const answer = scripted ? scripted(message) : this.answer(message)
    if (message.flags & 0x10 || answer === undefined) return
    if (typeof answer === 'number') this.peer.refuse(message, answer)
    else this.peer.reply(message, answer)
  }

  /** What a right server answers; throws if the request is none of the specification's. */
  answer({ command, body }: VfioMessage): MockAnswer {
    const query = (size: number): number[] => {
      checkSame(body.length, size, `bytes of command ${command}`)
      const words = readFields(body, 4, 4, 4, 4)
      check(words[0]! >= size, `argsz ${words[0]} of command ${command}`)
      checkSame([words[1], words[3]], [0, 0], `fields of command ${command} that must be zero`)
      return words
    }
    switch (command) {
      case VfioUser.version: {
        checkSame(readFields(body, 2, 2)[0], 0, 'major')
        checkSame(body.at(-1), 0, 'the last byte of version data')
        const told = JSON.parse(new TextDecoder().decode(body.subarray(4, -1))) as {
          capabilities: Record<string, unknown>
        }
        checkSame(told.capabilities['max_msg_fds'], 0, 'max_msg_fds of a client that cannot receive any')
        return versionBody(0, 0, { capabilities: { max_data_xfer_size: 1 << 20, interrupt_messages: true } })
      }
      case VfioUser.deviceGetInfo: {
        query(16)
        return fieldsOf([4, 16], [4, 3], [4, 9], [4, 5])
      }
      case VfioUser.deviceGetRegionInfo: {
        const index = query(32)[2]!
        const size = index === CONFIGURATION ? 256 : index <= TABLE_BAR ? MOCK_FUNCTION.barSize : 0
        return fieldsOf([4, 32], [4, size > 0 ? 3 : 0], [4, index], [4, 0], [8, size], [8, 0])
      }
      case VfioUser.deviceGetIrqInfo: {
        const [, , index] = readFields(body, 4, 4, 4)
        checkSame(body.length, 16, 'bytes of DEVICE_GET_IRQ_INFO')
        return fieldsOf([4, 16], [4, 0], [4, index!], [4, index === MSIX ? MOCK_FUNCTION.vectors : 0])
      }
      case VfioUser.dmaMap: {
        const [argsz, flags, offset, , size] = readFields(body, 4, 4, 8, 8, 8)
        checkSame([body.length, argsz, flags, offset], [32, 32, 3, 0], 'DMA_MAP')
        check(size! > 0 && size! <= 2 ** 43, `a mapping of ${size} bytes, where libvfio-user takes 8 TiB`)
        return new Uint8Array(0)
      }
      case VfioUser.deviceReset: {
        checkSame(body.length, 0, 'bytes of DEVICE_RESET')
        return new Uint8Array(0)
      }
      case VfioUser.regionRead: {
        const { bytes, offset, count } = this.#region(body)
        checkSame(body.length, 16, 'bytes of REGION_READ')
        return new Uint8Array([...body, ...bytes.subarray(offset, offset + count)])
      }
      case VfioUser.regionWrite: {
        const { bytes, offset, count } = this.#region(body)
        checkSame(body.length, 16 + count, 'bytes of REGION_WRITE')
        bytes.set(body.subarray(16), offset)
        return body.slice(0, 16)
      }
    }
    throw new Error(`command ${command} is not one of a client`)
  }

  #region(body: Uint8Array): { readonly bytes: Uint8Array; readonly offset: number; readonly count: number } {
    const [offset, region, count] = readFields(body, 8, 4, 4) as [number, number, number]
    check(region === 0 || region === CONFIGURATION, `an access to region ${region}`)
    const bytes = region === 0 ? this.registers : this.configuration
    check(count > 0 && offset + count <= bytes.length, `${count} bytes at ${offset} of region ${region}`)
    return { bytes, offset, count }
  }
}
