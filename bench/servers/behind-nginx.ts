import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { nginxSite } from '../../src/commands/nginx-config.js'
import { readConfig } from '../../src/config.js'
import { freePort } from '../../test/free-port.js'
import { nginxMain } from '../../test/nginx-main.js'
import type { ServerProcess, Stage } from '../stage.js'
import { voicemaildCommand, type ServerSettings } from './voicemaild.js'

/**
 * voicemaild with nginx in front, by the site that `voicemaild nginx-config` prints, but for its TLS, which costs more than all the rest. nginx is a
 * child of voicemaild here, so that both are measured as one.
 */
export async function startBehindNginx (stage: Stage, dataFolder: string, settings: ServerSettings, accelPrefix?: string): Promise<ServerProcess> {
  const [ownPort, port] = [await freePort(), await freePort()]
  const folder = stage.newFolder('behind-nginx')
  const file = join(folder, 'nginx.conf')
  await mkdir(folder, { recursive: true })
  const { program, args, env } = voicemaildCommand(dataFolder, ownPort, settings)
  await writeFile(file, configOf(folder, port, nginxSite(readConfig({ ...env, X_ACCEL_PREFIX: accelPrefix, PORT: String(ownPort), PUBLIC_URL: `https://localhost:${port}` }), {})))
  const server = await stage.startServer({
    program: 'sh',
    args: ['-c', `setpriv --pdeathsig TERM nginx -c ${file} -p ${folder} & exec "$@"`, 'sh', program, ...stage.nodeArgs, ...args],
    env: { ...env, ...accelPrefix !== undefined && { X_ACCEL_PREFIX: accelPrefix } },
    port: ownPort
  })
  return { ...server, port }
}

function configOf (folder: string, port: number, site: string): string {
  const plain = site.replaceAll(/^ *(?:listen \[::\]|ssl_).*\n/gm, '').replace('listen 80;', `listen unix:${join(folder, 'plain')};`).replace(`listen ${port} ssl http2;`, `listen 127.0.0.1:${port};`)
  return nginxMain(folder, `
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
${plain}`, { user: 'root' })
}
