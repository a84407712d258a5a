/** Reads configurations. Apart from everything else, so that the thread loads the YAML parser only if it reads one. */
export { hostConfig, loadConfig, vmConfigs, withOverrides } from '@nonroot/hypervisor'
