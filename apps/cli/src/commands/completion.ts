/** `nonroot completion SHELL`: a script by which a shell completes our command lines. Made of the commands and options that main.ts declares. */

import type { Argument, Command, Option } from 'commander'

/** What a place of the command line takes. */
type Kind = 'file' | 'stack' | 'vm' | 'nothing' | readonly string[]

interface Subcommand {
  /** `image debian`; empty for the program itself. */
  readonly path: string
  readonly description: string
  readonly children: readonly Subcommand[]
  readonly options: readonly { readonly names: readonly string[]; readonly description: string; readonly takes: Kind | undefined }[]
  readonly takes: Kind
}

/** By the name that the usage gives it, as in `--disk <file>`. */
function kindOf(name: string, choices: readonly string[] | undefined): Kind {
  if (choices) return choices
  if (/^(file|folder|path|socket|stack)/.test(name)) return name === 'stack' ? 'stack' : 'file'
  return name === 'vm' ? 'vm' : 'nothing'
}

const kindOfArgument = (argument: Argument | undefined): Kind =>
  argument ? kindOf(argument.description.startsWith('the VM,') ? 'vm' : argument.name(), argument.argChoices) : 'nothing'

const kindOfOption = (option: Option): Kind | undefined =>
  option.required || option.optional ? kindOf(/[<[]([\w-]+)/.exec(option.flags)?.[1] ?? '', option.argChoices) : undefined

function describe(command: Command, path = ''): Subcommand {
  const options = command.createHelp().visibleOptions(command)
  return {
    ...{ path, description: command.description(), takes: kindOfArgument(command.registeredArguments[0]) },
    children: command.commands.map((child) => describe(child, path === '' ? child.name() : `${path} ${child.name()}`)),
    options: options.map((option) => ({
      names: [option.short, option.long].filter((name) => name !== undefined && name !== null),
      ...{ description: option.description, takes: kindOfOption(option) },
    })),
  }
}

const all = (command: Subcommand): Subcommand[] => [command, ...command.children.flatMap(all)]
const last = (path: string): string => path.slice(path.lastIndexOf(' ') + 1)

export function completion(shell: 'bash' | 'zsh' | 'fish', program: Command, stacks: readonly string[]): string {
  const root = describe(program)
  if (shell === 'fish') return fish(root, stacks)
  return `${shell === 'zsh' ? 'autoload -Uz compinit bashcompinit && compinit && bashcompinit\n' : ''}${bash(root, stacks)}`
}

/** Names of running VMs. */
const VMS = "nonroot ps 2>/dev/null | awk 'NR > 1 { print $2 }'"

function bash(root: Subcommand, stacks: readonly string[]): string {
  const words = (kind: Kind): string => {
    if (kind === 'vm') return `COMPREPLY=($(compgen -W "$(${VMS})" -- "$cur"))`
    if (kind === 'file') return 'COMPREPLY=($(compgen -f -- "$cur"))'
    if (kind === 'stack') return `COMPREPLY=($(compgen -f -W "${stacks.join(' ')}" -- "$cur"))`
    return `COMPREPLY=(${kind === 'nothing' ? '' : `$(compgen -W "${kind.join(' ')}" -- "$cur")`})`
  }
  const commands = all(root)
  const paths = commands.flatMap(({ path }) => (path === '' ? [] : [`'${path}'`]))
  const values = commands.flatMap(({ path, options }) =>
    options.flatMap(({ names, takes }) => (takes === undefined ? [] : [`    ${names.map((name) => `'${path} ${name}'`).join(' | ')}) ${words(takes)}; return ;;`])),
  )
  const places = commands.map(({ path, options, children, takes }) => {
    const names = options.flatMap((option) => option.names)
    const other = children.length ? words(children.map((child) => last(child.path))) : words(takes)
    return `    '${path}') if [ "\${cur#-}" != "$cur" ]; then ${words(names)}; else ${other}; fi ;;`
  })
  return `_nonroot() {
  local cur prev path word index
  cur=\${COMP_WORDS[COMP_CWORD]}
  prev=\${COMP_WORDS[COMP_CWORD-1]}
  path=
  COMPREPLY=()
  for ((index = 1; index < COMP_CWORD; index++)); do
    word=\${COMP_WORDS[index]}
    [ "$word" = -- ] && return
    case "\${path:+$path }$word" in
      ${paths.join(' | ')}) path="\${path:+$path }$word" ;;
    esac
  done
  case "$path $prev" in
${values.join('\n')}
  esac
  case "$path" in
${places.join('\n')}
  esac
}
complete -o filenames -F _nonroot nonroot
`
}

function fish(root: Subcommand, stacks: readonly string[]): string {
  const quote = (text: string): string => `'${text.replaceAll('\\', '\\\\').replaceAll("'", "\\'")}'`
  const takes = (kind: Kind): string => {
    if (kind === 'file') return ' -F'
    if (kind === 'stack') return ` -F -a ${quote(stacks.join(' '))}`
    if (kind === 'vm') return ` -f -a ${quote(`(${VMS})`)}`
    return kind === 'nothing' ? ' -f' : ` -f -a ${quote(kind.join(' '))}`
  }
  const lines = all(root).flatMap(({ path, options, children, takes: kind }) => {
    const seen = path.split(' ').map((word) => `__fish_seen_subcommand_from ${word}`)
    const none = children.length ? [`not __fish_seen_subcommand_from ${children.map((child) => last(child.path)).join(' ')}`] : []
    const when = `complete -c nonroot -n ${quote([...(path === '' ? [] : seen), ...none].join('; and ') || 'true')}`
    return [
      ...children.map((child) => `${when} -f -a ${last(child.path)} -d ${quote(child.description)}`),
      ...(children.length === 0 ? [`${when}${takes(kind)}`] : []),
      ...options.map(({ names, description, takes: value }) => {
        const flags = names.map((name) => (name.startsWith('--') ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`)).join(' ')
        return `${when} ${flags}${value === undefined ? '' : ` -r${takes(value)}`} -d ${quote(description)}`
      }),
    ]
  })
  return `complete -c nonroot -e\n${lines.join('\n')}\n`
}
