// `npm run docs`: the site, of the same Markdown that is read in the repository and of the packages' declarations, into site/.
import { OptionDefaults } from 'typedoc'

const repository = 'https://github.com/nonroot/nonroot'

export default {
  name: 'nonroot',
  entryPoints: ['apps/cli/src/index.ts', 'packages/*/src/index.ts'],
  tsconfig: 'tools/tsconfig.docs.json',
  readme: 'README.md',
  projectDocuments: ['docs/*.md', 'docs/adr/*.md', 'packages/*/README.md', 'CONTRIBUTING.md', 'SECURITY.md'],
  out: 'site',
  excludePrivate: true,
  excludeExternals: true,
  // `npm run typecheck` does that.
  skipErrorChecking: true,
  disableGit: true,
  sourceLinkTemplate: `${repository}/blob/main/{path}#L{line}`,
  navigationLinks: { Repository: repository },
  modifierTags: [...OptionDefaults.modifierTags, '@hot'],
}
