import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import type { Metafile } from 'esbuild'
import { ROOT } from './bundle.js'

/** Where an installation of Node keeps its license, seen from the program. */
const NODE_LICENSES = ['../LICENSE', '../share/doc/nodejs/LICENSE', '../share/doc/nodejs/copyright', './LICENSE']

/** The licenses of all that is inside a bundle, of `more` packages whose files lie beside it, and of the Node that carries it. */
export async function gatherLicenses (metafile: Metafile, more: string[], legalComments: string): Promise<string> {
  const bundled = Object.keys(metafile.inputs).map(input => /^(?:.*\/)?node_modules\/(?:@[^/]+\/)?[^/]+/.exec(input)?.[0]).filter(folder => folder !== undefined)
  const folders = [...new Set([...bundled.map(folder => join(ROOT, folder)), ...more])].sort()
  const parts = await Promise.all(folders.map(async folder => {
    const { name, version, license } = JSON.parse(await readFile(join(folder, 'package.json'), 'utf8'))
    const file = (await readdir(folder)).sort().find(name => /^(licen[cs]e|copying)(\.|$)/i.test(name))
    return `${name} ${version} (${license})\n\n${file === undefined ? 'It comes without a text of its license.' : await readFile(join(folder, file), 'utf8')}`
  }))
  const ofNode = NODE_LICENSES.map(path => join(dirname(process.execPath), path)).find(path => existsSync(path))
  return [
    await readFile(join(ROOT, 'LICENSE'), 'utf8'),
    'SQLite is in the public domain: https://www.sqlite.org/copyright.html',
    ...parts,
    `Node.js ${process.version}\n\n${ofNode === undefined ? `https://github.com/nodejs/node/blob/${process.version}/LICENSE` : await readFile(ofNode, 'utf8')}`,
    await readFile(legalComments, 'utf8')
  ].map(text => text.trim()).join(`\n\n${'='.repeat(78)}\n\n`) + '\n'
}
