/** Splits `-- COMMAND...` off a command line: it runs in the guest. */

export function splitCommand(argv: readonly string[]): {
  ours: readonly string[]
  command: readonly string[] | undefined
} {
  const cut = argv[0] === 'run' || argv[0] === 'exec' ? argv.indexOf('--') : -1
  return cut < 0 ? { ours: argv, command: undefined } : { ours: argv.slice(0, cut), command: argv.slice(cut + 1) }
}
