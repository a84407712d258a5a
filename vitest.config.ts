import { defineConfig } from 'vitest/config'
import { shared } from './vitest.shared.ts'

// One project for all packages: they share processes, and what they import is transformed and loaded once. In a package's folder its own configuration counts.
const packages = { ...shared, test: { ...shared.test, name: 'packages', include: ['packages/*/src/**/*.test.ts'] } }

export default defineConfig({ test: { projects: [packages, 'apps/*', 'tools'] } })
