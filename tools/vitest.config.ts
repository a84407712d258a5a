import { defineConfig } from 'vitest/config'

// These drive npm, tsc and the built command. The smoke runs those that take a minute of the processor.
const exclude = process.env['NONROOT_SMOKE'] ? [] : ['third-party.test.ts']
export default defineConfig({
  test: { environment: 'node', include: ['*.test.ts'], exclude, maxWorkers: '100%', testTimeout: 150_000, hookTimeout: 60_000 },
})
