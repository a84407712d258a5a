/** A suite's release file: signed by the archive's keys, with the hashes of the suite's package lists. */
import type { Bytes } from '../bytes.ts'
import { decodeText } from '../bytes.ts'
import { parseControl } from '../deb.ts'
import { ImageError } from '../errors.ts'

export interface ReleaseFile {
  readonly size: number
  readonly sha256: string
}

export interface Release {
  /** By path below the suite's folder. */
  readonly files: ReadonlyMap<string, ReleaseFile>
  /** Files can be had by their hashes, too. */
  readonly byHash: boolean
}

export interface ReleaseTrust {
  /** OpenPGP public keys, armored or not. */
  readonly keys: Bytes
  readonly suite: string
  /** Where it is from, in messages. */
  readonly url: string
  /** Milliseconds since 1970. */
  readonly now: number
}

/** Clocks of mirrors and of hosts differ. */
const CLOCK_DIFFERENCE_MS = 24 * 60 * 60 * 1000

const ARMOR = '-----BEGIN'

/** Throws ImageError where the keys are none. */
async function readKeys(keys: Bytes) {
  const openpgp = await import('openpgp')
  try {
    const text = decodeText(keys.subarray(0, 64)).trimStart()
    if (text.startsWith(ARMOR)) return await openpgp.readKeys({ armoredKeys: decodeText(keys) })
    return await openpgp.readKeys({ binaryKeys: new Uint8Array(keys) })
  } catch (cause) {
    throw new ImageError(
      'badSignature',
      `the keyring has no OpenPGP public keys (${messageOf(cause)})`,
      'give public keys, as gpg --export writes them',
    )
  }
}

const messageOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/** The text that one of the keys has signed. Any other text in the file is not part of it. */
async function signedText(file: Bytes, { keys, url, now }: ReleaseTrust): Promise<string> {
  const publicKeys = await readKeys(keys)
  const { readCleartextMessage, verify } = await import('openpgp')
  const refuse = (why: string) =>
    new ImageError(
      'badSignature',
      `${url} is not signed by a key that is trusted: ${why}`,
      'use another mirror; if it has keys of its own, give them with --keyring FILE',
    )
  const reasons: string[] = []
  try {
    const message = await readCleartextMessage({ cleartextMessage: decodeText(file) })
    const { data, signatures } = await verify({ message, verificationKeys: publicKeys, date: new Date(now) })
    for (const { verified } of signatures) {
      const reason = await verified.then(() => undefined, messageOf)
      if (reason === undefined) return data
      reasons.push(reason)
    }
  } catch (cause) {
    throw refuse(messageOf(cause))
  }
  throw refuse(reasons.join('; ') || 'it has no signature')
}

/** Throws ImageError unless a trusted key has signed it for this suite and this time. */
export async function openRelease(file: Bytes, trust: ReleaseTrust): Promise<Release> {
  const { suite, url, now } = trust
  const fields = parseControl(await signedText(file, trust))[0] ?? new Map<string, string>()
  const get = (name: string) => fields.get(name) ?? ''
  // Another suite's file is just as well signed.
  if (get('Codename') !== suite && get('Suite') !== suite) {
    throw new ImageError('badSignature', `${url} is of the suite ${JSON.stringify(get('Codename'))}, not ${suite}`, 'use another mirror')
  }
  const until = get('Valid-Until')
  // A date that cannot be read is one that has passed.
  if (until !== '' && !(Date.parse(until) >= now)) {
    throw new ImageError('expired', `${url} was valid until ${until}`, "use a mirror that is kept up to date, and check this host's clock")
  }
  if (Date.parse(get('Date')) > now + CLOCK_DIFFERENCE_MS) {
    throw new ImageError('expired', `${url} is of ${get('Date')}, which is yet to come`, "check this host's clock")
  }
  const files = new Map<string, ReleaseFile>()
  for (const line of get('SHA256').split('\n')) {
    const [, sha256, size, path] = /^([0-9a-f]{64})\s+(\d+)\s+(\S+)$/.exec(line) ?? []
    if (path !== undefined) files.set(path, { size: Number(size), sha256: sha256! })
  }
  return { files, byHash: get('Acquire-By-Hash') === 'yes' }
}
