import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { freePort } from '../stage.js'
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
  return `
daemon off;
worker_processes 1;
${process.getuid?.() === 0 ? 'user root;' : ''}
pid ${join(folder, 'nginx.pid')};
error_log ${join(folder, 'error.log')} error;
events { worker_connections 1024; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  keepalive_timeout 60s;
  keepalive_requests 1000000000;
  client_max_body_size 20m;
  client_body_temp_path ${join(folder, 'incoming')};
  proxy_temp_path ${join(folder, 'proxy')};
  fastcgi_temp_path ${join(folder, 'fastcgi')};
  uwsgi_temp_path ${join(folder, 'uwsgi')};
  scgi_temp_path ${join(folder, 'scgi')};
  types { audio/wav wav; }
  server {
    listen 127.0.0.1:${port};
    root ${folder};
    location /files/ {
      dav_methods PUT;
      create_full_put_path on;
    }
  }
}
`
}
