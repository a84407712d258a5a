/** The package lists of suites: finds records by name without reading all of them into objects. */
import { parseControl } from '../deb.ts'
import { parseDepends, toPackage } from './source.ts'
import type { DebianPackage } from './source.ts'
import { compareVersions } from './versions.ts'

export interface ListedPackage extends DebianPackage {
  /** Its file, below the mirror's address; as the list says it. */
  readonly path: string
  readonly mirror: URL
}

interface Place {
  readonly list: string
  readonly mirror: URL
  readonly start: number
  readonly end: number
  readonly version: string
  readonly provides: string
}

/** The fields that choose a package, and the empty line after each record. */
const FIELDS = /^(?:(Package|Version|Provides): (.*))?$/gm
const EMPTY = { Package: '', Version: '', Provides: '' }

export class PackageLists {
  private readonly places = new Map<string, Place>()

  /** Of a package in several lists the newest version counts; of equal ones the first. */
  add(list: string, mirror: URL): void {
    let start = 0
    let fields = EMPTY
    const end = (at: number) => {
      const { Package: name, Version: version, Provides: provides } = fields
      this.note(name, { list, mirror, start, end: at, version, provides })
      start = at
      fields = EMPTY
    }
    for (const { index, 1: field, 2: value = '' } of list.matchAll(FIELDS)) {
      if (field === undefined) end(index)
      else fields = { ...fields, [field]: value.trim() }
    }
    end(list.length)
  }

  private note(name: string, place: Place): void {
    const known = this.places.get(name)
    if (name !== '' && (!known || compareVersions(known.version, place.version) < 0)) this.places.set(name, place)
  }

  find(name: string): ListedPackage | undefined {
    const place = this.places.get(name)
    const fields = place && parseControl(place.list.slice(place.start, place.end))[0]
    const found = fields && toPackage(fields)
    return found && { ...found, path: fields.get('Filename') ?? '', mirror: place.mirror }
  }

  providers(name: string): string[] {
    const found: string[] = []
    for (const [provider, { provides }] of this.places)
      if (provides.includes(name) && parseDepends(provides).flat().includes(name)) found.push(provider)
    return found
  }
}
