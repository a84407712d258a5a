/** examples/kubernetes: the manifests, by the schema of Kubernetes and by what its restricted pod security asks for. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { cli } from '../testing/cli.ts'

const folder = fileURLToPath(new URL('../../../../examples/kubernetes/', import.meta.url))
/** A model of `kubernetes-models`, which checks by Kubernetes' own schema. */
type Model = new (manifest: unknown) => { validate(): void }

interface Container {
  readonly args: readonly string[]
  readonly securityContext: object
  readonly resources: { readonly limits: object }
}
interface Manifest {
  readonly spec: { readonly template: { readonly spec: { readonly securityContext: object; readonly containers: readonly Container[]; readonly volumes: readonly object[] } } }
}

describe.each([
  { name: 'job.yaml', models: 'kubernetes-models/batch/v1', kind: 'Job' },
  { name: 'deployment.yaml', models: 'kubernetes-models/apps/v1', kind: 'Deployment' },
])('$name', ({ name, models, kind }) => {
  const manifest = parse(readFileSync(join(folder, name), 'utf8')) as Manifest
  const { spec } = manifest.spec.template
  const [container] = spec.containers

  it('is what Kubernetes takes', async () => {
    const { [kind]: Model } = (await import(models)) as Record<string, Model>
    expect(() => new Model!(manifest).validate()).not.toThrow()
    expect(() => new Model!({ ...manifest, spec: { template: [] } }).validate()).toThrow()
  })

  // "Pod Security Standards", Restricted.
  it('is restricted, and has limits', () => {
    expect(spec.securityContext).toMatchObject({ runAsNonRoot: true, seccompProfile: { type: 'RuntimeDefault' } })
    expect(container!.securityContext).toMatchObject({ allowPrivilegeEscalation: false, capabilities: { drop: ['ALL'] } })
    for (const key of ['hostNetwork', 'hostPID', 'hostIPC']) expect(spec).not.toHaveProperty(key)
    expect(spec.volumes.every((volume) => 'emptyDir' in volume)).toBe(true)
    expect(Object.keys(container!.resources.limits)).toEqual(['cpu', 'memory'])
  })

  it('gives nonroot options that it knows', async () => {
    // The image does not exist: what is refused is refused for that, not for an option.
    const { err } = await cli('run', '--kernel', '/nowhere', ...container!.args.slice(0, container!.args.indexOf('--')))
    expect(err).toMatch(/^error: .*\/nowhere/)
  })
})
