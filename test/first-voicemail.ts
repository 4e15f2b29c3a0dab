import { readFile } from 'node:fs/promises'

/** The commands of "Your first voicemail" in the README, to be pasted into a shell: for a server of another address, with another data folder. */
export async function firstVoicemail ({ url, dataFolder = 'storage' }: { url: string, dataFolder?: string }): Promise<string> {
  const readme = await readFile(new URL('../README.md', import.meta.url), 'utf8')
  const [, block = ''] = /^## Your first voicemail\n[^]*?^```sh\n([^]*?)^```/m.exec(readme) ?? []
  const [address, folder] = ['http://127.0.0.1:8080', 'storage/']
  if (!block.includes(address) || !block.includes(` ${folder}`)) throw new Error('The first voicemail is not for an installation without configuration.')
  return block.replaceAll(address, url).replaceAll(` ${folder}`, ` ${dataFolder}/`).replaceAll(`(cat ${folder}`, `(cat ${dataFolder}/`)
}
