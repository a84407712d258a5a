/** The common ar archive, as .deb uses it: magic, then 60-byte headers with decimal sizes, members on even offsets. (deb(5)) */
import { type Bytes, decodeText, startsWith } from './bytes.ts'
import { invalidImage } from './errors.ts'

export interface ArMember {
  readonly name: string
  readonly data: Bytes
}

const MAGIC = [...'!<arch>\n'].map((c) => c.charCodeAt(0))
const HEADER = 60

/** Members in file order; their data are views, not copies. */
export function readAr(archive: Bytes, file = 'archive'): ArMember[] {
  if (!startsWith(archive, MAGIC))
    throw invalidImage(file, 'ar magic', decodeText(archive.subarray(0, 8)), 'it should begin with "!<arch>"')
  const members: ArMember[] = []
  for (let at = MAGIC.length; at < archive.length;) {
    const header = archive.subarray(at, at + HEADER)
    if (header.length < HEADER || header[58] !== 0x60 || header[59] !== 0x0a) {
      throw invalidImage(
        file,
        `ar header at ${at}`,
        `${header.length} bytes`,
        'the archive is truncated or corrupted: get it again',
      )
    }
    const size = decodeText(header.subarray(48, 58)).trimEnd()
    const start = at + HEADER
    if (!/^\d+$/.test(size) || start + Number(size) > archive.length) {
      throw invalidImage(
        file,
        `size of the ar member at ${at}`,
        size,
        `at most ${archive.length - start} bytes are left: get it again`,
      )
    }
    // GNU ar ends a name with '/', dpkg-deb does not.
    const name = decodeText(header.subarray(0, 16)).trimEnd().replace(/\/$/, '')
    members.push({ name, data: archive.subarray(start, start + Number(size)) })
    at = start + Number(size) + (Number(size) & 1)
  }
  return members
}
