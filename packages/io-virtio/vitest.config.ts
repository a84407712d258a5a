import { defineConfig } from 'vitest/config'
import { shared } from '../../vitest.shared.ts'

// The score of the code that faces a guest. It only rises: `npx vitest run --coverage` holds it.
const thresholds = { 'src/queue/**': { lines: 99 }, 'src/transport/**': { lines: 99 } }

export default defineConfig({
  ...shared,
  test: {
    ...shared.test,
    coverage: { provider: 'v8', include: ['src/**/*.ts'], exclude: ['src/**/*.test.*'], thresholds },
  },
})
