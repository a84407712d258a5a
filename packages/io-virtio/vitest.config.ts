import { readFileSync } from 'node:fs'
import { defineConfig } from 'vitest/config'
import { shared } from '../../vitest.shared.ts'

// The score of the code that faces a guest: per cent of its lines. It only rises; `npm run coverage:virtio` holds it, as does `npm test`.
const score = JSON.parse(readFileSync(new URL('./coverage-score.json', import.meta.url), 'utf8')) as Record<
  string,
  number
>
const thresholds = Object.fromEntries(Object.entries(score).map(([folder, lines]) => [`${folder}/**`, { lines }]))

export default defineConfig({
  ...shared,
  test: {
    ...shared.test,
    coverage: {
      provider: 'v8',
      include: Object.keys(score).map((folder) => `${folder}/**/*.ts`),
      exclude: ['src/**/*.test.*'],
      reporter: [['text', { skipFull: true }]],
      thresholds,
    },
  },
})
