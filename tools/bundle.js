// The command and the VM's thread in few files, with the plugins that came with it: apps/cli/bundle/. Node takes a millisecond for each
// file that it finds, reads and compiles, and the packages have some four hundred. Made of what was built; the packages stay what they are.
import { createHash } from 'node:crypto'
import { globSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { fileURLToPath } from 'node:url'
import { rolldown } from 'rolldown'

const root = new URL('../', import.meta.url)
const app = new URL('apps/cli/', root)
const path = (name) => fileURLToPath(new URL(name, app))
const manifestOf = (name) => JSON.parse(readFileSync(createRequire(app).resolve(`${name}/package.json`), 'utf8'))

/** In place of src/shipped.ts: every dependency of the command that is a plugin, with its version. */
function shipped() {
  const { dependencies } = JSON.parse(readFileSync(path('package.json'), 'utf8'))
  const plugins = Object.keys(dependencies)
    .filter((name) => name.startsWith('@nonroot/'))
    .map(manifestOf)
    .filter(({ nonroot }) => nonroot !== undefined)
  const imports = plugins.map(({ name }, index) => `import plugin${index} from '${name}'`)
  const rows = plugins.map(
    ({ name, version }, index) => `['${name}', { version: '${version}', plugin: plugin${index} }],`,
  )
  return [...imports, 'export const shipped = new Map([', ...rows, '])'].join('\n')
}

/** What every run of a guest needs of the command: one file, but for what starts the thread. */
const RUN = new RegExp(
  [
    String.raw`apps\/cli\/dist\/(main|host|io|shipped|version|size-option|profile\/profile-file|commands\/run)\.js`,
    String.raw`apps\/cli\/dist\/run\/(?!start-times|disk-plan|config-reader|agent-plan|guest-agent|command-channel).*\.js`,
    String.raw`packages\/(contracts|host-node\/dist\/(?!threads)|hypervisor\/dist\/composition\/(config-|loaded-config|issues|spelling))`,
    String.raw`node_modules\/(commander|import-meta-resolve|yaml|zod)\/`,
    '^\0later:',
  ].join('|'),
)
/** The server of the control socket, which a run loads once its guest runs. */
const CONTROL = /apps\/cli\/dist\/control\/(control-server|qmp-session|host-commands|vm-commands|arguments|json-stream|runtime-folder)\.js/
const RUN_CHUNK = { includeDependenciesRecursively: false, groups: [{ name: 'run', test: RUN }, { name: 'control', test: CONTROL }] }

const COMPILE_THREAD = fileURLToPath(new URL('packages/x86/dist/compiler/compile-thread.js', root))
/** Of the thread's code what only a configuration that it reads itself needs. */
const CONFIG_READER = /packages\/hypervisor\/dist\/composition\/config-(load|text)\.js|node_modules\/yaml\//
/** What the thread's code and that of a network, which is loaded apart, both need. */
const GROUND = new RegExp(String.raw`packages\/(contracts|host-node\/dist\/(host-network|make-folder|sockets))|^\0later:`)
const THREAD_CHUNKS = {
  includeDependenciesRecursively: false,
  groups: [
    { name: 'config-reader', test: CONFIG_READER },
    { name: 'ground', test: GROUND },
  ],
}

/** A module that a thread is started for names itself; in a bundle, the file that has it. */
const ownFile = {
  name: 'own-file',
  transform: {
    filter: { id: COMPILE_THREAD },
    handler(code) {
      const named = code.replace('new URL(import.meta.url)', "new URL('./compile-thread.js', import.meta.url)")
      if (named === code) throw new Error(`${COMPILE_THREAD} no longer names itself as this expects`)
      return named
    },
  },
}
/**
 * Node's own modules that few starts need, with what is called of them: each is loaded by the first call. An import of anything else of
 * theirs fails here; a function goes into the table, for what is no function the module leaves it.
 */
const LATER = {
  child_process: ['execFile', 'spawn'],
  crypto: ['createCipheriv', 'createDecipheriv', 'createHash', 'randomBytes', 'randomFillSync'],
  net: ['connect', 'createServer'],
  readline: ['createInterface'],
  zlib: ['crc32', 'gunzipSync', 'inflateRaw', 'inflateRawSync', 'zstdCompressSync', 'zstdDecompress', 'zstdDecompressSync'],
}
/** Of assertions only those that fail need it. */
const ASSERT = `export default { ok(value, message) { if (!value) process.getBuiltinModule('assert').ok(value, message) } }`
const calledLater = {
  name: 'called-later',
  resolveId: {
    filter: { id: new RegExp(`^(node:)?(assert|${Object.keys(LATER).join('|')})$`) },
    handler: (id) => `\0later:${id.replace('node:', '')}`,
  },
  load: {
    filter: { id: /^\0later:/ },
    handler(id) {
      const module = id.slice('\0later:'.length)
      if (module === 'assert') return ASSERT
      const calls = LATER[module].map(
        (name) => `export const ${name} = (...args) => process.getBuiltinModule('${module}').${name}(...args)`,
      )
      return [...calls, `export default { ${LATER[module].join(', ')} }`].join('\n')
    },
  },
}

// Handlers of common instructions are made here and now, and are good for this very code only: both carry a digest of it.
const X86 = fileURLToPath(new URL('packages/x86/', root))
const PREBUILT = `${X86}dist/interpreter/prebuilt.js`
const digest = createHash('sha256')
for (const file of globSync('dist/**/*.js', { cwd: X86 }).toSorted()) digest.update(readFileSync(`${X86}${file}`))
const build = digest.digest('hex').slice(0, 32)
const ownBuild = {
  name: 'own-build',
  transform: {
    filter: { id: PREBUILT },
    handler(code) {
      const told = code.replace("BUILD = ''", `BUILD = '${build}'`)
      if (told === code) throw new Error(`${PREBUILT} no longer has a place for its build`)
      return told
    },
  },
}
const fromList = { name: 'shipped', load: { filter: { id: path('dist/shipped.js') }, handler: shipped } }

/** V8 keeps a source with a single other character in two bytes for each. */
const ascii = {
  name: 'ascii',
  generateBundle(_options, files) {
    const escaped = (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`
    for (const file of Object.values(files))
      if (file.type === 'chunk') file.code = file.code.replace(/[^\0-\x7f]/g, escaped)
  },
}

/** What both of two files need is in both, and neither reads what only the other needs. */
async function bundle(name, input, plugins, codeSplitting) {
  const build = await rolldown({
    cwd: path('.'),
    platform: 'node',
    preserveEntrySignatures: 'allow-extension',
    input: { [name]: input },
    plugins: [...plugins, calledLater, ascii],
    // Under another licence (LGPL), and wanted only for mirrors: it stays a package of its own.
    external: ['openpgp'],
    // A thread has in one file what the command imports when it needs it.
    checks: { ineffectiveDynamicImport: false },
  })
  await build.write({
    dir: path('bundle'),
    format: 'esm',
    // Flat: code asks for what is beside it and above it.
    entryFileNames: '[name].js',
    chunkFileNames: '[name]-[hash].js',
    comments: false,
    ...(codeSplitting ? { codeSplitting } : {}),
  })
}

rmSync(path('bundle'), { recursive: true, force: true })
await bundle('thread-entry', fileURLToPath(new URL('packages/host-node/dist/thread-entry.js', root)), [])
await bundle('listener-thread', fileURLToPath(new URL('packages/host-node/dist/listener-thread.js', root)), [])
await bundle('compile-thread', COMPILE_THREAD, [ownFile])
await bundle('vm-thread', path('dist/vm-thread.js'), [fromList, ownFile, ownBuild], THREAD_CHUNKS)
const { buildPrebuilt, PREBUILT_HANDLERS } = await import(new URL('packages/x86/dist/index.js', root).href)
writeFileSync(
  path(`bundle/${PREBUILT_HANDLERS}`),
  buildPrebuilt(readFileSync(`${X86}common-shapes.txt`, 'utf8'), build),
)
// Last: by its time it is known whether all of it is new.
await bundle('start', path('dist/start.js'), [], RUN_CHUNK)
