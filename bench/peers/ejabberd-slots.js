import { client, xml } from '@xmpp/client'

/** Asks an ejabberd for upload slots (XEP-0363), over XMPP as its users do, and prints their URLs: PUT, blank, GET. */
const [port, count, size] = process.argv.slice(2).map(Number)
const AT_ONCE = 50

const xmpp = client({ service: `xmpp://127.0.0.1:${port}`, domain: 'localhost' })
xmpp.on('error', error => {
  console.error(error)
  process.exit(1)
})
await xmpp.start()

let begun = 0
const lines = []
async function askForSome () {
  while (begun < count) {
    begun += 1
    const request = xml('request', { xmlns: 'urn:xmpp:http:upload:0', filename: 'message.wav', size, 'content-type': 'audio/wav' })
    const answer = await xmpp.iqCaller.request(xml('iq', { type: 'get', to: 'upload.localhost' }, request), 60_000)
    const slot = answer.getChild('slot')
    lines.push(`${slot.getChild('put').attrs.url} ${slot.getChild('get').attrs.url}\n`)
  }
}
await Promise.all(Array.from({ length: AT_ONCE }, askForSome))
process.stdout.write(lines.join(''))
await xmpp.stop()
