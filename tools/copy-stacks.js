// The shipped stacks into the command's package, where `extends: nonroot/stacks/...` finds them.
import { cpSync, rmSync } from 'node:fs'

const to = new URL('../apps/cli/stacks/', import.meta.url)
rmSync(to, { recursive: true, force: true })
cpSync(new URL('../stacks/', import.meta.url), to, { recursive: true })
