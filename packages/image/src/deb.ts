/** A Debian binary package: its control fields and the files it would install. Runs no maintainer script. (deb(5), deb-control(5)) */
import { readAr } from './ar.ts'
import { type Bytes, decodeText } from './bytes.ts'
import { type Decompressors, decompressChunks } from './compression.ts'
import { invalidImage } from './errors.ts'
import { type TarEntry, type TarFile, readTar } from './tar.ts'

export interface Deb {
  readonly control: ReadonlyMap<string, string>
  /** Files in archive order; data only of the regular files that `wanted` accepts. */
  files(wanted?: (entry: TarEntry) => boolean): AsyncGenerator<TarFile>
}

/** "Field: value" paragraphs with continuation lines, as dpkg, apt-cache and Packages files write them. */
export function parseControl(text: string): Map<string, string>[] {
  return text
    .split(/\n(?:[ \t]*\n)+/)
    .map((paragraph) => {
      const fields = new Map<string, string>()
      let last = ''
      for (const line of paragraph.split('\n')) {
        const match = /^([!-9;-~]+):[ \t]*(.*)$/.exec(line)
        if (match) fields.set((last = match[1]!), match[2]!)
        else if (last !== '' && /^[ \t]/.test(line)) fields.set(last, `${fields.get(last)}\n${line.trim()}`)
      }
      return fields
    })
    .filter((fields) => fields.size > 0)
}

export async function openDeb(bytes: Bytes, decompressors: Decompressors = {}, file = 'package'): Promise<Deb> {
  const members = readAr(bytes, file)
  if (members[0]?.name !== 'debian-binary' || !decodeText(members[0].data).startsWith('2.')) {
    throw invalidImage(
      file,
      'first member',
      members[0]?.name ?? 'nothing',
      'a .deb begins with debian-binary, format 2.x',
    )
  }
  const member = (stem: string): Bytes => {
    const found = members.find(({ name }) => name === stem || name.startsWith(`${stem}.`))
    if (!found) throw invalidImage(file, 'member', stem, 'the package has none: get it again')
    return found.data
  }
  const tarOf = (stem: string, wanted?: (entry: TarEntry) => boolean) =>
    readTar(decompressChunks(member(stem), decompressors, `${file}: ${stem}`), wanted, `${file}: ${stem}`)

  let control: Map<string, string> | undefined
  for await (const entry of tarOf('control.tar', ({ path }) => path === 'control')) {
    if (entry.path === 'control') control = parseControl(decodeText(entry.data))[0]
  }
  if (!control?.has('Package')) throw invalidImage(file, 'control file', 'no Package field', 'get the package again')
  return { control, files: (wanted) => tarOf('data.tar', wanted) }
}
