/** Networks that need no privilege: user mode. Protocols only; sockets are the host's (`HostNetwork`). */
export * from './open-network.ts'
export * from './user/user-network.ts'
