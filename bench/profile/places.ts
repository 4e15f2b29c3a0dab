import { readFileSync } from 'node:fs'

/** A function in a profile, as V8 tells it (Chrome DevTools Protocol, Runtime.CallFrame); native functions have no URL, and lines count from 0. */
export interface CallFrame { functionName: string, url: string, lineNumber: number }

/** Where time can go. */
export type Place = typeof PLACES[number]
export const PLACES = [
  'handing files to threads', 'files, at once', 'writing to sockets', 'SQLite', 'hashes and signatures', 'collecting garbage', 'node: HTTP', 'node: everything else',
  'Fastify and its like', 'other libraries', 'voicemaild', 'outside of JavaScript'
] as const

/** Native functions of node, by what they are for. Those of `fs` go to a thread where they are called without waiting. */
const NATIVE: ReadonlyMap<string, Place> = new Map([
  ...['writev', 'writeBuffer', 'writeUtf8String', 'writeLatin1String', 'writeAsciiString', 'shutdown'].map(name => [name, 'writing to sockets'] as const),
  ...['update', 'digest', 'Hash', 'Hmac', 'init', 'oneShotDigest', 'timingSafeEqual'].map(name => [name, 'hashes and signatures'] as const)
])
const FILES = new Set(['open', 'close', 'read', 'fstat', 'link', 'unlink', 'rename', 'fsync', 'fdatasync', 'writeBuffers', 'writeBuffer', 'statfs', 'mkdir', 'openFileHandle'])
/** Of those, what is done while everybody waits (src/stores/disk.ts). */
const FILES_AT_ONCE = new Set(['openSync', 'readSync', 'fstatSync', 'closeSync'])

const FASTIFY = /^(fastify|@fastify|find-my-way|avvio|light-my-request|fast-json-stringify|ajv|ajv-formats|fast-uri|secure-json-parse|rfdc|reusify|toad-cache|process-warning|@fastify\/.*|content-type|proxy-addr|forwarded|ipaddr\.js|pino|sonic-boom|quick-format-unescaped|pino-std-serializers|fastq|semver|cookie|set-cookie-parser)$/

/** Tells of the functions in a bundle, which says in comments what each part of it comes from, where they belong. */
export function createPlaces (bundle: string): (stack: readonly CallFrame[]) => { place: Place, name: string } {
  const starts: Array<{ line: number, module: string }> = []
  readFileSync(bundle, 'utf8').split('\n').forEach((text, line) => {
    const module = /^\s*\/\/ ((?:src|node_modules)\/\S+)$/.exec(text)?.[1]
    if (module !== undefined) starts.push({ line, module })
  })

  function moduleAt (line: number): string {
    let [low, high] = [0, starts.length]
    while (high - low > 1) {
      const middle = (low + high) >> 1
      if ((starts[middle]?.line ?? 0) <= line) low = middle
      else high = middle
    }
    return starts[low]?.module ?? ''
  }

  /** The module of a function that is not native; undefined where it is. */
  function moduleOf ({ url, lineNumber }: CallFrame): string | undefined {
    if (url === '') return undefined
    if (url.endsWith(bundle)) return moduleAt(lineNumber)
    return url.replace(/^.*\/(?=node_modules\/)/, '')
  }

  function placeOf (module: string): Place {
    if (module.startsWith('node:')) {
      if (/^node:internal\/crypto/.test(module)) return 'hashes and signatures'
      return /^node:(_http|net$|internal\/(stream_base|http|net))/.test(module) ? 'node: HTTP' : 'node: everything else'
    }
    if (module.startsWith('src/stores/prepared') || module.includes('better-sqlite3')) return 'SQLite'
    if (module.startsWith('src/')) return 'voicemaild'
    const name = /node_modules\/((?:@[^/]+\/)?[^/]+)/.exec(module)?.[1] ?? ''
    // What Fastify compiles from schemas has no file.
    return name === '' || FASTIFY.test(name) || name.startsWith('@fastify/') ? 'Fastify and its like' : 'other libraries'
  }

  /** The stack begins with the function that ran. */
  return stack => {
    const [leaf = { functionName: '', url: '', lineNumber: 0 }, ...callers] = stack
    const { functionName } = leaf
    const module = moduleOf(leaf)
    if (module !== undefined) return { place: placeOf(module), name: `${functionName === '' ? 'a function' : functionName} (${module.replace(/^node_modules\//, '')})` }
    if (functionName === '(garbage collector)') return { place: 'collecting garbage', name: functionName }
    if (functionName === '(program)' || functionName === '(root)') return { place: 'outside of JavaScript', name: functionName }
    const caller = callers.find(frame => frame.url !== '')
    const name = `${functionName === '' ? 'native' : functionName}, called by ${caller?.functionName ?? 'nobody'}`
    if (caller !== undefined && FILES.has(functionName) && /^node:(fs|internal\/fs)/.test(caller.url)) {
      return { place: FILES_AT_ONCE.has(caller.functionName) ? 'files, at once' : 'handing files to threads', name }
    }
    return { place: NATIVE.get(functionName) ?? (caller === undefined ? 'outside of JavaScript' : placeOf(moduleOf(caller) ?? '')), name }
  }
}
