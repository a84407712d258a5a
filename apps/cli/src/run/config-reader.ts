/** Reading configurations, apart from all else, so that the thread loads YAML only where it reads one. */
export { hostConfig, loadConfig, vmConfigs, withOverrides } from '@nonroot/hypervisor'
