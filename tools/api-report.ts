/**
 * `npm run api`: writes what each public package exports into its api.txt, which is under review in git: a change of an interface is then a
 * change of a file. Of the declarations that the build wrote, without comments and private members. `--check`: says which are stale.
 *
 * API Extractor reports more, but brings a compiler of its own that is older than ours, and takes a process and seconds for each package.
 */

import { readFileSync, writeFileSync } from 'node:fs'
import { join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { packages, root } from './workspace.ts'
import type { WorkspacePackage } from './workspace.ts'

const printer = ts.createPrinter({ removeComments: true })

const isPrivate = (node: ts.Node): boolean =>
  (ts.canHaveModifiers(node) && !!ts.getModifiers(node)?.some(({ kind }) => kind === ts.SyntaxKind.PrivateKeyword)) ||
  (ts.isPropertyDeclaration(node) && ts.isPrivateIdentifier(node.name))

const withoutPrivate: ts.TransformerFactory<ts.Node> = (context) => (node) =>
  ts.isClassDeclaration(node)
    ? context.factory.updateClassDeclaration(
        node,
        node.modifiers,
        node.name,
        node.typeParameters,
        node.heritageClauses,
        node.members.filter((member) => !isPrivate(member)),
      )
    : node

function textOf(declaration: ts.Declaration): string {
  const node = ts.isVariableDeclaration(declaration) ? declaration.parent.parent : declaration
  const { transformed } = ts.transform(node, [withoutPrivate])
  return printer.printNode(ts.EmitHint.Unspecified, transformed[0]!, declaration.getSourceFile())
}

/** The package whose file it is. */
function ownerOf(file: string, all: readonly WorkspacePackage[]): string | undefined {
  return all.find(({ folder }) => !relative(folder, file).startsWith('..'))?.name ?? /.*node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(file)?.[1]
}

/** Text of each package's report, by the package's folder. Throws where a package was not built. */
export function apiReports(): Map<string, string> {
  const all = packages()
  const entry = ({ folder }: WorkspacePackage) => join(folder, 'dist/index.d.ts')
  const program = ts.createProgram(all.map(entry), {
    target: ts.ScriptTarget.ES2023,
    module: ts.ModuleKind.NodeNext,
    moduleResolution: ts.ModuleResolutionKind.NodeNext,
    skipLibCheck: true,
    types: ['node'],
  })
  const checker = program.getTypeChecker()
  const reports = new Map<string, string>()
  for (const one of all) {
    const file = program.getSourceFile(entry(one))
    const module = file && checker.getSymbolAtLocation(file)
    if (!module) throw new Error(`${one.name} has no dist/index.d.ts: npm run prepare`)
    const lines = checker
      .getExportsOfModule(module)
      .toSorted((a, b) => (a.name < b.name ? -1 : 1))
      .map((symbol) => {
        const target = symbol.flags & ts.SymbolFlags.Alias ? checker.getAliasedSymbol(symbol) : symbol
        const declarations = target.declarations ?? []
        const owner = declarations[0] && ownerOf(declarations[0].getSourceFile().fileName, all)
        const name = symbol.name === target.name ? symbol.name : `${target.name} as ${symbol.name}`
        if (owner !== one.name) return `export { ${name} } from '${owner}'`
        return [...(symbol.name === target.name ? [] : [`export { ${name} }`]), ...new Set(declarations.map(textOf))].join('\n')
      })
    reports.set(one.folder, `${one.name}: written by npm run api\n\n${lines.join('\n\n')}\n`)
  }
  return reports
}

export const reportFile = (folder: string): string => join(folder, 'api.txt')

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  for (const [folder, text] of apiReports()) {
    let before = ''
    try {
      before = readFileSync(reportFile(folder), 'utf8')
    } catch {
      // The first of a new package.
    }
    if (before === text) continue
    console.log(relative(root, reportFile(folder)))
    if (process.argv.includes('--check')) process.exitCode = 1
    else writeFileSync(reportFile(folder), text)
  }
}
