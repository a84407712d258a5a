/** The vfio-user protocol, for tests of either side. */
export * from './client-suite.ts'
export * from './mock-server.ts'
export * from './server-suite.ts'
export * from './wire.ts'
