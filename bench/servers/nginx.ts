import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort } from '../../test/free-port.js'
import { nginxMain } from '../../test/nginx-main.js'
import { newTargets, rawUpload, type Peer } from './peer.js'

/** The limit: PUT into files (a body is written beside them, and renamed) and static files, by one worker, without a check or a sync. */
export const nginx: Peer = {
  name: 'nginx',
  start: async (stage, folder) => {
    const port = await freePort()
    const config = join(folder, 'nginx.conf')
    await mkdir(join(folder, 'files'), { recursive: true })
    await mkdir(join(folder, 'incoming'))
    await writeFile(config, configOf(folder, port))
    return {
      server: await stage.startServer({ program: 'nginx', args: ['-c', config, '-p', folder], port }),
      // Spread over folders, as voicemaild spreads them.
      upload: (audio, count) => rawUpload(audio, newTargets(count, id => `/files/${id.slice(0, 2)}/${id}.wav`))
    }
  },
  downloadTarget: fileName => `/files/${fileName}`
}

function configOf (folder: string, port: number): string {
  return nginxMain(folder, `
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 60s;
  keepalive_requests 1000000000;
  client_max_body_size 20m;
  types { audio/wav wav; }
  server {
    listen 127.0.0.1:${port};
    root ${folder};
    location /files/ {
      dav_methods PUT;
      create_full_put_path on;
    }
  }`, { user: 'root' })
}
