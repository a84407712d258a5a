import { defineConfig, mergeConfig } from 'vitest/config'
import { shared } from '../../vitest.shared.ts'

// Plugins are imported by Node itself: it must see the sources, too.
export default defineConfig(
  mergeConfig(shared, { test: { execArgv: ['--conditions=@nonroot/source'] } }),
)
