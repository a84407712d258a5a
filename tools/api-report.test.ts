/** What packages export is what api.txt of each says, so that a change of it is seen in review. */

import { readFileSync } from 'node:fs'
import { relative } from 'node:path'
import { expect, it } from 'vitest'
import { apiReports, reportFile } from './api-report.ts'
import { packages, root } from './workspace.ts'

it('api.txt of each package is up to date; npm run api writes it', { timeout: 60_000 }, () => {
  const reports = apiReports()
  expect(reports.size).toBe(packages().length)
  for (const [folder, text] of reports) {
    let written = ''
    try {
      written = readFileSync(reportFile(folder), 'utf8')
    } catch {
      // Shown as what it lacks: all.
    }
    expect(written, `${relative(root, reportFile(folder))}: npm run api`).toBe(text)
  }
})

it('a report has what is exported, without what is private and without comments', () => {
  const image = [...apiReports()].find(([folder]) => folder.endsWith('/image'))![1]
  expect(image).toMatch(/^export declare class Mirror extends PackageSource \{\n {4}constructor\(/m)
  expect(image).toContain('export declare class ImageError extends NonrootError {')
  expect(image).not.toMatch(/private |\/\*\*|^declare /m)
})
