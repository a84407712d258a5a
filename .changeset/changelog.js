// Lines of changelogs: what changed, with its commit, and each dependency that is newer once, not once for each of its changes.

export const getReleaseLine = ({ commit, summary }) => Promise.resolve(`- ${commit ? `${commit.slice(0, 7)}: ` : ''}${summary.trim().replaceAll('\n', '\n  ')}`)

export const getDependencyReleaseLine = (_changes, dependencies) =>
  Promise.resolve(dependencies.length === 0 ? '' : `- Newer dependencies: ${dependencies.map(({ name, newVersion }) => `${name}@${newVersion}`).join(', ')}`)
