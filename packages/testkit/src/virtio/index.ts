/** Virtio from the driver's side: rings, registers, a driver, and what every virtio device must do. */
export * from './driver.ts'
export * from './fuzz.ts'
export * from './registers.ts'
export * from './rings.ts'
export * from './suite.ts'
