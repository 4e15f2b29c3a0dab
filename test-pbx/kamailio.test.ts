import { spawn } from 'node:child_process'
import { createSocket, type Socket } from 'node:dgram'
import { once } from 'node:events'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { DEPLOY } from '../test/deploy/scripts.js'

/** Somebody who speaks SIP over UDP, a datagram at a time. */
async function endpoint (t: Test): Promise<{ socket: Socket, port: number, next: (what: RegExp) => Promise<string>, send: (message: string, port: number) => void }> {
  const socket = createSocket('udp4')
  socket.bind(0, '127.0.0.1')
  await once(socket, 'listening')
  t.teardown(() => { socket.close() })
  const heard: string[] = []
  const waiting: Array<() => void> = []
  socket.on('message', message => {
    heard.push(message.toString('latin1'))
    for (const look of waiting.splice(0)) look()
  })
  return {
    socket,
    port: socket.address().port,
    next: async what => {
      for (;;) {
        const at = heard.findIndex(message => what.test(message))
        if (at !== -1) return heard.splice(at, 1)[0] ?? ''
        await new Promise<void>(resolve => { waiting.push(resolve) })
      }
    },
    send: (message, port) => { socket.send(message.replaceAll('\n', '\r\n'), port, '127.0.0.1') }
  }
}

/** The real Kamailio, as a proxy that relays to Bob's phone, with kamailio-voicemail.cfg of this project. */
async function startKamailio (t: Test, { phone, voicemail }: { phone: number, voicemail: number }): Promise<number> {
  const folder = t.testdir({ run: {} })
  const free = createSocket('udp4').bind(0, '127.0.0.1')
  await once(free, 'listening')
  const { port } = free.address()
  await new Promise<void>(resolve => { free.close(resolve) })
  const file = join(folder, 'kamailio.cfg')
  await writeFile(file, `#!KAMAILIO
#!define VOICEMAIL_SERVER "sip:127.0.0.1:${voicemail}"
listen=udp:127.0.0.1:${port}
children=1
disable_tcp=yes
log_stderror=yes
loadmodule "tm.so"
loadmodule "sl.so"
loadmodule "pv.so"
loadmodule "textops.so"
modparam("tm", "fr_timer", 1000)
include_file "${DEPLOY}kamailio-voicemail.cfg"
request_route {
    if (is_method("OPTIONS")) { sl_send_reply("200", "OK"); exit; }
    if (is_method("ACK")) { t_relay(); exit; }
    if (is_method("CANCEL")) { if (t_check_trans()) t_relay(); exit; }
    if ($rU == "carol") { route(TO_VOICEMAIL); exit; }
    # What a location table would say.
    $ru = "sip:line7@127.0.0.1:${phone}";
    t_on_failure("VOICEMAIL");
    t_relay();
}
`)
  await mkdir(join(folder, 'run'), { recursive: true })
  const kamailio = spawn('kamailio', ['-DD', '-E', '-f', file, '-Y', join(folder, 'run'), '-m', '32', '-M', '4', '-n', '1'], { stdio: ['ignore', 'pipe', 'pipe'] })
  let said = ''
  kamailio.stderr.on('data', chunk => { said += String(chunk) })
  const ended = once(kamailio, 'close')
  t.teardown(async () => {
    kamailio.kill('SIGTERM')
    await ended
  })
  // What is sent before it is up is lost: it is asked until it answers.
  const probe = await endpoint(t)
  const timer = setInterval(() => { probe.send(request({ method: 'OPTIONS', to: 'sip:sip.example.org', from: probe.port, call: 'probe' }), port) }, 100)
  const up = await Promise.race([probe.next(/^SIP\/2\.0 200 /).then(() => true), ended.then(() => false)])
  clearInterval(timer)
  if (!up) throw new Error(`Kamailio ended: ${said}`)
  return port
}

function request ({ method = 'INVITE', to, from, call }: { method?: string, to: string, from: number, call: string }): string {
  return `${method} ${to} SIP/2.0
Via: SIP/2.0/UDP 127.0.0.1:${from};branch=z9hG4bK-${call}
Max-Forwards: 70
From: "Alice" <sip:alice@sip.example.org>;tag=${call}
To: <${to}>
Call-ID: ${call}
CSeq: 1 ${method}
Contact: <sip:alice@127.0.0.1:${from}>
Content-Length: 0

`
}

/** An answer to a request, with the headers that it has to have. */
function answerTo (request: string, status: string): string {
  const headers = request.split('\r\n').filter(line => /^(via|from|to|call-id|cseq):/i.test(line))
  return `SIP/2.0 ${status}\n${headers.map(line => /^to:/i.test(line) ? `${line};tag=callee` : line).join('\n')}\nContact: <sip:callee@127.0.0.1>\nContent-Length: 0\n\n`
}

t.test('Kamailio sends a call that nobody took to voicemail, with the address that was called', async t => {
  const [alice, phone, voicemail] = [await endpoint(t), await endpoint(t), await endpoint(t)]
  const port = await startKamailio(t, { phone: phone.port, voicemail: voicemail.port })
  for (const [at, status] of ['486 Busy Here', '480 Temporarily Unavailable', '408 Request Timeout', '603 Decline'].entries()) {
    const call = `call-${at}`
    alice.send(request({ to: 'sip:bob@sip.example.org', from: alice.port, call }), port)
    const atPhone = await phone.next(new RegExp(`^INVITE [^]*Call-ID: ${call}\r`))
    t.match(atPhone, new RegExp(`^INVITE sip:line7@127\\.0\\.0\\.1:${phone.port} `), 'first to the phone')
    phone.send(answerTo(atPhone, status), port)
    const atVoicemail = await voicemail.next(new RegExp(`^INVITE [^]*Call-ID: ${call}\r`))
    t.match(atVoicemail, /^INVITE sip:bob@sip\.example\.org SIP\/2\.0\r/, status)
    t.match(atVoicemail, /\r\nFrom: "Alice" <sip:alice@sip\.example\.org>/)
    voicemail.send(answerTo(atVoicemail, '200 OK'), port)
    t.match(await alice.next(new RegExp(`^SIP/2\\.0 200 [^]*Call-ID: ${call}\r`)), /^SIP\/2\.0 200 OK/)
  }

  alice.send(request({ to: 'sip:bob@sip.example.org', from: alice.port, call: 'silent' }), port)
  t.match(await voicemail.next(/^INVITE [^]*Call-ID: silent\r/), /^INVITE sip:bob@sip\.example\.org SIP\/2\.0\r/, 'a phone that says nothing')

  alice.send(request({ to: 'sip:carol@sip.example.org', from: alice.port, call: 'offline' }), port)
  t.match(await voicemail.next(/^INVITE [^]*Call-ID: offline\r/), /^INVITE sip:carol@sip\.example\.org SIP\/2\.0\r/, 'who is not registered')

  alice.send(request({ to: 'sip:bob@sip.example.org', from: alice.port, call: 'wrong' }), port)
  const atPhone = await phone.next(/^INVITE [^]*Call-ID: wrong\r/)
  phone.send(answerTo(atPhone, '488 Not Acceptable Here'), port)
  t.match(await alice.next(/^SIP\/2\.0 [4-6][^]*Call-ID: wrong\r/), /^SIP\/2\.0 488 /, 'other refusals are the caller\'s to know')
})
