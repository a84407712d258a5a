import * as HN from '@nonroot/host-node'
const { createNodeBackends, tuneWasm } = HN
import { diskParts } from '@nonroot/image'
import { createHypervisor, createLog, loadStack } from '@nonroot/hypervisor'
import { moduleSource } from './dist/host.js'
import { Session } from 'node:inspector'
import fs from 'node:fs'
const [kernel, initrd, tests, prof, ...set] = process.argv.slice(2)
if(!process.env.NOTUNE) tuneWasm()
const t0=performance.now()
let session
if (prof && prof!=='-') { session=new Session(); session.connect(); session.post('Profiler.enable'); session.post('Profiler.setSamplingInterval',{interval:500}); session.post('Profiler.start') }
const source = moduleSource()
const pb = process.env.PB ? new URL('file:///tmp/pb/') : undefined
const stack = await loadStack(new URL('../../stacks/kvm-like.yaml', import.meta.url).pathname, { source, set: [`boot={"linux":{"kernel":"${kernel}","initrd":"${initrd}","cmdline":"console=ttyS0 panic=-1 quiet tests=${tests}"}}`, ...set] })
const hv = await createHypervisor(stack, { backends: createNodeBackends({ block: diskParts, ...(pb?{prebuilt:pb}:{}) }), log: createLog((l,m)=>console.error(l,m),'info'), resolvePath: (f,p)=>source.resolvePath(f,p) })
let rest=''
const begun=new Map()
const vm = await hv.createVm({ console: { write(bytes){ rest+=Buffer.from(bytes).toString('latin1'); let i; while((i=rest.indexOf('\n'))>=0){ const line=rest.slice(0,i).trim(); rest=rest.slice(i+1); const now=performance.now(); if(/GUEST-INIT/.test(line)) console.log('init', (now-t0).toFixed(0)); const m=/BENCH (\S+) (begin|end)/.exec(line); if(m){ if(m[2]==='begin') begun.set(m[1],now); else console.log(m[1].padEnd(12),(now-begun.get(m[1])).toFixed(0)) } } }, onInput(){}, flush(){}, size:{columns:80,rows:25}, onResize(){}, read(){} } })
console.log('created', (performance.now()-t0).toFixed(0))
const cpu0=process.cpuUsage()
const end = await vm.run()
const c=process.cpuUsage(cpu0)
if(globalThis.EX)console.log(JSON.stringify(globalThis.EX));if(globalThis.LAT)console.log(globalThis.LAT.join(" "));console.log(end, 'cpu', ((c.user+c.system)/1e6).toFixed(2), 'wall', ((performance.now()-t0)/1000).toFixed(2))
if (process.env.STATS) for(const s of vm.samples()) if(/tiers|instructions|runNs/.test(s.name)) console.log(s.name, s.value)
if (session) session.post('Profiler.stop',(e,{profile})=>{ fs.writeFileSync(prof, JSON.stringify(profile)); process.exit(0) })
else process.exit(0)
