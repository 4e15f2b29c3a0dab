import { cpus, release, totalmem } from 'node:os'
import { run } from './tools.js'

/** What figures depend on, as a list in Markdown. Tells no names of hosts and no paths. */
export async function describeMachine (folder: string): Promise<string> {
  const [model] = cpus()
  const fileSystem = (await run('df', ['--output=fstype', folder])).trim().split('\n').at(-1)
  return [
    `- CPU: ${model?.model.trim() ?? 'unknown'}, ${cpus().length} cores, of which the server has one and the client another`,
    `- Memory: ${(totalmem() / 2 ** 30).toFixed(1)} GiB`,
    `- Linux ${release().split('.', 2).join('.')}, ${fileSystem}`,
    `- Node ${process.version}`,
    `- ${new Date().toISOString().slice(0, 10)}, commit ${await commit()}`,
    ''
  ].join('\n')
}

async function commit (): Promise<string> {
  try {
    const id = (await run('git', ['rev-parse', '--short', 'HEAD'])).trim()
    // The results of the last run are no change of the program.
    const changes = await run('git', ['status', '--porcelain', '--untracked-files=no', '--', '.', ':!bench/RESULTS.md'])
    return changes === '' ? id : `${id} with changes`
  } catch {
    return 'unknown'
  }
}
