import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { nginxSite } from '../../src/commands/nginx-config.js'
import { readConfig } from '../../src/config.js'
import { freePort, type ServerProcess, type Stage } from '../stage.js'
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
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(name => `  ${name}_temp_path ${join(folder, name)};\n`).join('')
  return `
daemon off;
worker_processes 1;
${process.getuid?.() === 0 ? 'user root;' : ''}
pid ${join(folder, 'nginx.pid')};
error_log ${join(folder, 'error.log')} error;
events { worker_connections 1024; }
http {
  sendfile on;
  tcp_nopush on;
  keepalive_requests 1000000000;
${temporary}${site.replaceAll(/^ *(?:listen \[::\]|ssl_).*\n/gm, '').replace('listen 80;', `listen unix:${join(folder, 'plain')};`).replace(`listen ${port} ssl http2;`, `listen 127.0.0.1:${port};`)}
}
`
}
