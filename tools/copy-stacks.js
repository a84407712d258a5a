// The shipped stacks into the command's package, where `extends: nonroot/stacks/...` finds them.
import { cpSync } from 'node:fs'

const to = new URL('../apps/cli/stacks/', import.meta.url)
cpSync(new URL('../stacks/', import.meta.url), to, { recursive: true })
