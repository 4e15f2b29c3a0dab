import { join } from 'node:path'

/** What nginx is started with, around what is in `http`: one worker, and everything that it writes in one folder. `user` is a user and a group, for root. */
export function nginxMain (folder: string, http: string, { user, logLevel = 'error' }: { user?: string | undefined, logLevel?: 'error' | 'info' } = {}): string {
  const temporary = ['client_body', 'proxy', 'fastcgi', 'uwsgi', 'scgi'].map(name => `  ${name}_temp_path ${join(folder, `nginx-${name}`)};\n`).join('')
  return `
daemon off;
worker_processes 1;
${process.getuid?.() === 0 && user !== undefined ? `user ${user};` : ''}
pid ${join(folder, 'nginx.pid')};
error_log ${join(folder, 'nginx-error.log')} ${logLevel};
events { worker_connections 1024; }
http {
${temporary}${http}
}
`
}
