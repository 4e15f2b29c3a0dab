import type { Server } from 'node:http'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import { TlsServer } from '../plugins/tls-server.js'

/**
 * Node's `close` waits for connections on which no request has come yet (browsers and balancers open some in advance), and for
 * those whose last request ended after it: both for ever, or until they time out. Returns what ends them, for `close` to be
 * about requests alone.
 */
export function endUnusedConnections (server: Server): () => void {
  const unused = new Set<Socket>()
  let isClosing = false
  server.on(server instanceof TlsServer ? 'secureConnection' : 'connection', (socket: Socket) => {
    if (socket instanceof TLSSocket) {
      // HTTP/2 has a word for it, and closing the server says it.
      if (socket.alpnProtocol === 'h2') return
      // Its handshake was under way.
      if (isClosing) socket.destroy()
    }
    unused.add(socket)
    socket.once('close', () => { unused.delete(socket) })
  })
  server.on('request', ({ socket }, response) => {
    unused.delete(socket)
    response.once('close', () => { if (isClosing) setImmediate(() => { server.closeIdleConnections() }) })
  })
  return () => {
    isClosing = true
    for (const socket of unused) socket.destroy()
  }
}
