import { defineConfig } from 'vitest/config'

// These drive npm, tsc and the built command.
export default defineConfig({
  test: { environment: 'node', include: ['*.test.ts'], maxWorkers: '100%', testTimeout: 150_000, hookTimeout: 60_000 },
})
