/** DNS messages: what a forwarder needs in order to answer some queries itself. (RFC 1035) */

export const DNS_PORT = 53
export const DnsType = { a: 1, aaaa: 28 } as const
const CLASS_IN = 1
const HEADER = 12
const Code = { noError: 0, serverFailure: 2, noSuchName: 3 } as const
export type DnsCode = keyof typeof Code
/** What the host's resolver says it does not tell how long holds. */
const TTL_SECONDS = 30
const LONGEST_NAME = 253
const MOST_ANSWERS = 16

export interface Question {
  readonly name: string
  readonly type: number
  /** Where the question section ends. */
  readonly end: number
}

/** The question of a query that has exactly one, of class IN, with nothing unusual. */
export function parseQuestion(message: Uint8Array): Question | undefined {
  if (message.length < HEADER) return undefined
  const view = new DataView(message.buffer, message.byteOffset, message.length)
  // A query, of the standard kind, not cut off.
  if ((view.getUint16(2) & 0xfa00) !== 0 || view.getUint16(4) !== 1 || view.getUint16(6) !== 0) return undefined
  const labels: string[] = []
  let at = HEADER
  for (;;) {
    const length = message[at]
    // Compressed or of a kind that does not exist: 63 is the longest label.
    if (length === undefined || length > 63) return undefined
    at++
    if (length === 0) break
    if (at + length > message.length) return undefined
    const label = String.fromCharCode(...message.subarray(at, at + length))
    if (!/^[\w-]+$/.test(label)) return undefined
    labels.push(label)
    at += length
  }
  const name = labels.join('.')
  if (name === '' || name.length > LONGEST_NAME || at + 4 > message.length || view.getUint16(at + 2) !== CLASS_IN)
    return undefined
  return { name, type: view.getUint16(at), end: at + 4 }
}

/** An answer to `query`, with addresses of its question's type. */
export function dnsAnswer(
  query: Uint8Array,
  question: Question,
  code: DnsCode,
  addresses: readonly Uint8Array[] = [],
): Uint8Array {
  const given = addresses.slice(0, MOST_ANSWERS)
  const size = given.reduce((sum, { length }) => sum + 12 + length, 0)
  const answer = new Uint8Array(question.end + size)
  const view = new DataView(answer.buffer)
  answer.set(query.subarray(0, question.end))
  // Response, recursion desired as asked, recursion available.
  view.setUint16(2, 0x8080 | ((query[2]! << 8) & 0x0100) | Code[code])
  view.setUint16(6, given.length)
  view.setUint32(8, 0)
  let at = question.end
  for (const address of given) {
    view.setUint16(at, 0xc000 | HEADER)
    view.setUint16(at + 2, question.type)
    view.setUint16(at + 4, CLASS_IN)
    view.setUint32(at + 6, TTL_SECONDS)
    view.setUint16(at + 10, address.length)
    answer.set(address, at + 12)
    at += 12 + address.length
  }
  return answer
}
