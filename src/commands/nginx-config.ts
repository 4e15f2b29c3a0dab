import { join } from 'node:path'
import { SettingError, type Config } from '../config.js'
import { KEEP_ALIVE_TIMEOUT_MS, connectionTimeoutMs } from '../plugins/node-answers.js'
import { UsageError, type Output } from './output.js'

export interface NginxOptions {
  /** The host name of the site; that of PUBLIC_URL unless given. */
  serverName?: string
  /** Files in PEM: the certificate with its chain, and its key. Those of Let's Encrypt unless given. */
  certificate?: string
  certificateKey?: string
}

/** Prints the site. */
export function printNginxConfig (config: Config, { print }: Output, options: NginxOptions): void {
  print(nginxSite(config, options).trimEnd())
}

/** What nginx waits beyond our own limits, so that whoever is too slow hears it from us. */
const LATER_SECONDS = 10
/** So much shorter than ours nginx keeps a connection that idles: it never sends on one that we are about to close. */
const SOONER_SECONDS = 15

/** A complete site of nginx for these settings. Throws UsageError and SettingError for what no site can be made of. */
export function nginxSite (config: Config, options: NginxOptions): string {
  const publicUrl = config.publicUrl === undefined ? undefined : new URL(config.publicUrl)
  const { serverName = publicUrl?.hostname } = options
  if (serverName === undefined) throw new UsageError('--server-name: expected the host name of the site, or the setting PUBLIC_URL, found neither.')
  if (publicUrl !== undefined && publicUrl.pathname !== '/') {
    throw new SettingError('PUBLIC_URL', JSON.stringify(config.publicUrl), 'a URL without a path: behind nginx voicemaild has a host of its own')
  }
  if (config.tls !== undefined) throw new SettingError('TLS_CERT_FILE', 'a certificate', 'none, because behind nginx TLS is for nginx to speak')
  if (config.accelPrefix === '/') throw new SettingError('X_ACCEL_PREFIX', '"/"', 'a path below the root, which is taken')
  const port = publicUrl?.protocol === 'https:' && publicUrl.port !== '' ? publicUrl.port : '443'
  const { certificate = `/etc/letsencrypt/live/${serverName}/fullchain.pem`, certificateKey = `/etc/letsencrypt/live/${serverName}/privkey.pem` } = options
  const stalledSeconds = Math.ceil(connectionTimeoutMs(config.pace) / 1000) + LATER_SECONDS

  return `# nginx in front of voicemaild, as printed by \`voicemaild nginx-config\`; for nginx 1.18 and newer.
# In Debian: /etc/nginx/sites-available/voicemaild, with a link to it in sites-enabled.
#
# voicemaild has to be told of it by these settings:
#   PUBLIC_URL=${config.publicUrl ?? `https://${serverName}`}
#   TRUST_PROXY=${'path' in config.listen ? 'true   (who comes through the Unix socket has no address)' : '127.0.0.1'}
${config.accelPrefix === undefined ? '' : accelSettings(config.accelPrefix)}
# Idle connections to voicemaild are given up before it closes them (after ${KEEP_ALIVE_TIMEOUT_MS / 1000} s), so that no request goes into one that ends.
upstream voicemaild {
  server ${upstreamOf(config.listen)};
  keepalive 32;
  keepalive_timeout ${KEEP_ALIVE_TIMEOUT_MS / 1000 - SOONER_SECONDS}s;
}

# Each upload has a connection of its own. Recorders never try again, and an upload that is passed on unbuffered cannot be sent a second time: on
# a kept connection it would be lost if voicemaild were restarted in that moment. Making one costs next to nothing on the same machine.
upstream voicemaild_uploads {
  server ${upstreamOf(config.listen)};
}

server {
  listen 80;
  listen [::]:80;
  server_name ${quoted(serverName)};
  # Paths can be signed URLs, which are secrets; voicemaild logs requests without them.
  access_log off;
  server_tokens off;

  location /.well-known/acme-challenge/ {
    root /var/www/html;
  }
  # No redirect: a signed URL that came in the clear is not made good by it.
  location ~ ^(?:/api)?/(?:uploads|downloads)/ {
    return 403;
  }
  location / {
    return 301 https://$host${port === '443' ? '' : `:${port}`}$request_uri;
  }
}

server {
  # Flexisip's recorder speaks HTTP/2 only. (nginx 1.25 and newer says it with a line "http2 on;", and warns of this form.)
  listen ${port} ssl http2;
  listen [::]:${port} ssl http2;
  server_name ${quoted(serverName)};
  ssl_certificate ${quoted(certificate)};
  ssl_certificate_key ${quoted(certificateKey)};
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_ciphers ECDHE+AESGCM:ECDHE+CHACHA20;
  ssl_session_cache shared:voicemaild:2m;
  ssl_session_tickets off;
  # Paths can be signed URLs, which are secrets; voicemaild logs requests without them.
  access_log off;
  server_tokens off;

  # A recorder's connection idles up to 60 s, and up to 1,000 calls may end together on it.
  keepalive_timeout ${KEEP_ALIVE_TIMEOUT_MS / 1000}s;
  http2_max_concurrent_streams 1000;

  proxy_http_version 1.1;
  proxy_set_header Connection "";
  proxy_set_header Host $host;
  # Set, not appended to: what the client says of its address is not passed on.
  proxy_set_header X-Forwarded-For $remote_addr;
  proxy_set_header X-Forwarded-Proto $scheme;
  # No client says this, only @voicemaild_sends below.
  set $accel_failed "";
  proxy_set_header X-Accel-Failed $accel_failed;

  # voicemaild gives up where nothing moves for ${stalledSeconds - LATER_SECONDS} s, nginx a little later.
  proxy_read_timeout ${stalledSeconds}s;
  proxy_send_timeout ${stalledSeconds}s;
  send_timeout ${stalledSeconds}s;

  # A POST that was sent is never sent again: nobody knows what became of the first (nginx's default, said here because it matters).
  proxy_next_upstream error timeout;

  # Answers are taken from voicemaild as it has them, most voicemails whole, and sent at the listener's pace; but never by way of a file.
  proxy_buffering on;
  proxy_buffers 8 32k;
  proxy_max_temp_file_size 0;

  location / {
    proxy_pass http://voicemaild;
  }

  location ~ ^(?:/api)?/uploads/ {
    # No limit of nginx's. voicemaild has one (${config.limits.maxUploadBytes} bytes, and 64 KiB for what is around them in a form), refuses what is too large before it reads it, and
    # notes at the slot why; nginx would answer with a page of HTML that no recorder reads, and nobody would know what was lost.
    client_max_body_size 0;
    # Straight on: what is refused is refused at its first bytes, and nothing is written twice.
    proxy_request_buffering off;
    client_body_buffer_size 128k;
    # Whoever falls silent hears it from voicemaild, after ${config.pace.idleTimeoutMs / 1000} s.
    client_body_timeout ${Math.ceil(config.pace.idleTimeoutMs / 1000) + LATER_SECONDS}s;
    proxy_pass http://voicemaild_uploads;
  }

  # For this machine alone; add what watches from elsewhere.
  location ~ ^(?:/api)?/(?:metrics|health)(?:/|$) {
    allow 127.0.0.1;
    allow ::1;
    deny all;
    proxy_pass http://voicemaild;
  }
${config.accelPrefix === undefined ? '' : accelLocations(config.accelPrefix, join(config.dataFolder, 'audio'))}}
`
}

function accelSettings (prefix: string): string {
  return `#   X_ACCEL_PREFIX=${prefix}
# and nginx's workers have to be in the group of voicemaild: adduser www-data voicemaild, and restart nginx.
`
}

/** nginx sends the files; to whom, and what is said about them, is still up to voicemaild. */
function accelLocations (prefix: string, folder: string): string {
  return `
  # Audio, sent by nginx when voicemaild says so, and never by itself.
  location ^~ ${quoted(prefix)} {
    internal;
    alias ${quoted(`${folder}/`)};
    sendfile on;
    tcp_nopush on;
    # The validators are voicemaild's, and so are the conditions: it has judged them when it comes to this. But for If-Range, which is judged here.
    etag off;
    if_modified_since off;
    add_header ETag $upstream_http_etag;
    add_header Last-Modified $upstream_http_last_modified;
    # Of several ranges, the whole file.
    max_ranges 1;
    # nginx keeps Content-Type, Content-Disposition and Cache-Control of an answer that it takes over; these it has to be told to.
    add_header X-Content-Type-Options $upstream_http_x_content_type_options;
    add_header Content-Security-Policy $upstream_http_content_security_policy;
    add_header Referrer-Policy $upstream_http_referrer_policy;
    add_header Cross-Origin-Resource-Policy $upstream_http_cross_origin_resource_policy;
    # A file that nginx may not read, or that is gone: voicemaild sends it, or says what became of it.
    log_not_found off;
    error_page 403 404 = @voicemaild_sends;
  }
  location @voicemaild_sends {
    set $accel_failed 1;
    proxy_pass http://voicemaild$request_uri;
  }
`
}

function upstreamOf (listen: Config['listen']): string {
  if ('path' in listen) return quoted(`unix:${listen.path}`)
  if (listen.port === 0) throw new SettingError('PORT', '0', 'a port that stays the same')
  const host = { '0.0.0.0': '127.0.0.1', '::': '::1' }[listen.host] ?? listen.host
  return quoted(`${host.includes(':') ? `[${host}]` : host}:${listen.port}`)
}

/** A word of nginx's configuration. It has no way to write a dollar sign that stands for itself. */
function quoted (word: string): string {
  if (/[\p{Cc}$]/u.test(word)) throw new UsageError(`expected a name without control characters and dollar signs, which nginx cannot be told, found ${JSON.stringify(word)}.`)
  return /^[\w./:@[\]*-]+$/.test(word) ? word : `"${word.replaceAll(/["\\]/g, '\\$&')}"`
}
