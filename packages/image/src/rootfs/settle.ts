/** Settings that a new Debian needs to boot in a virtual machine: host name, login, file system table. Changes entries before they are written to the disk. */

import { type Bytes, concatBytes, decodeText, encodeText } from '../bytes.ts'
import { diskEntry, fileEntry } from '../disk/entry.ts'
import type { DiskEntries, DiskEntry } from '../disk/entry.ts'

export const HOSTNAME = 'nonroot'

/** Packages and lists of the archive, which can be had again; who the machine was that this was made on. */
const LEFT_OUT = [
  /^var\/lib\/dbus\/machine-id$/,
  /^var\/cache\/apt\/.+\.(deb|bin)$/,
  /^var\/lib\/apt\/lists\/.+/,
  /^var\/log\/(bootstrap|dpkg)\.log$/,
]

/** A processor in software takes its time: nothing is wrong after 90 seconds. (systemd-system.conf(5)) */
const PATIENCE = `[Manager]
DefaultTimeoutStartSec=30min
DefaultTimeoutStopSec=30min
DefaultDeviceTimeoutSec=30min
`
/** Of services that say themselves how long they may take, for every one of them. (systemd.unit(5), "top-level drop-in") */
const PATIENCE_WITH_SERVICES = `[Service]
TimeoutStartSec=30min
`

const files = (uuid: string): Readonly<Record<string, string>> => ({
  'etc/fstab': `UUID=${uuid} / ext4 errors=remount-ro 0 1\n`,
  'etc/hostname': `${HOSTNAME}\n`,
  'etc/hosts': `127.0.0.1 localhost\n127.0.1.1 ${HOSTNAME}\n::1 localhost ip6-localhost ip6-loopback\n`,
  // Empty: made on the first boot, each copy its own.
  'etc/machine-id': '',
  'etc/default/locale': 'LANG=C.UTF-8\n',
  'etc/systemd/system.conf.d/nonroot.conf': PATIENCE,
  'etc/systemd/system/service.d/nonroot.conf': PATIENCE_WITH_SERVICES,
})

/** Root comes in without a password. (shadow(5)) */
const openShadow = (text: string): string => text.replace(/^root:[^:]*:/m, 'root::')

async function read(content: DiskEntry['content']): Promise<Bytes> {
  const parts: Bytes[] = []
  for await (const part of content) parts.push(part.slice())
  return concatBytes(parts)
}

/** `uuid`: of the file system to be. `added`: further files, by path. */
export async function* settle(
  entries: DiskEntries,
  uuid: string,
  modified: bigint,
  added: Readonly<Record<string, Bytes>>,
): DiskEntries {
  const own = files(uuid)
  for await (const entry of entries) {
    const { path } = entry
    if (path in own || LEFT_OUT.some((pattern) => pattern.test(path))) continue
    if (path !== 'etc/shadow') yield entry
    else {
      const content = encodeText(openShadow(decodeText(await read(entry.content))))
      yield { ...entry, size: content.length, content: [content] }
    }
  }
  for (const [path, text] of Object.entries(own)) yield fileEntry(path, encodeText(text), 0o644, modified)
  // systemd's generator makes the getty for a console; this one is there on any command line.
  yield diskEntry(
    {
      path: 'etc/systemd/system/getty.target.wants/serial-getty@ttyS0.service',
      kind: 'symbolicLink',
      mode: 0o777,
      linkTarget: '/lib/systemd/system/serial-getty@.service',
    },
    modified,
  )
  for (const [path, data] of Object.entries(added)) yield fileEntry(path, data, 0o644, modified)
}
