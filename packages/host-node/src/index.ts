/** Node as a host: files, terminals, packages, threads. The only package besides apps/ that imports `node:*`. */
export * from './backends.ts'
export * from './block-file.ts'
export * from './console.ts'
export { findPackage, installedPlugins } from './find-package.ts'
export * from './module-source.ts'
export * from './terminal.ts'
export * from './thread-console.ts'
export * from './tune.ts'
