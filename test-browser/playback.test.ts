import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { chromium, type Page } from 'playwright-core'
import t from 'tap'
import { DURATIONS, sample, startService, typeOf } from '../test/helper.js'

/** A browser's clock of a file differs from ours by the encoder's look-ahead of Opus (6.5 ms), and no more. */
const TOLERANCE_SECONDS = 0.01

t.test('Chromium plays voicemails from their signed URLs', async t => {
  const service = await startService(t)
  const browser = await chromium.launch({
    executablePath: '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync', '--autoplay-policy=no-user-gesture-required']
  })
  t.teardown(async () => { await browser.close() })

  // A page of another origin, as an owner's web interface is.
  const origin = createServer((_request, response) => { response.setHeader('content-type', 'text/html').end('<!doctype html><title>mailbox</title>') })
  await new Promise<void>(resolve => { origin.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => { origin.close() })
  const { port } = origin.address() as AddressInfo

  const { id: account } = await service.addUser()
  async function store (name: string): Promise<string> {
    const { uploadUrl } = await service.openSlot(account, typeOf(name))
    const answer = await fetch(uploadUrl, { method: 'PUT', body: await sample(`ok/${name}`) })
    const { download_url: url } = await answer.json() as { download_url: string }
    return url
  }

  for (const name of ['pcm16-16k.wav', 'alaw-8k.wav', 'flexisip-voicemail-8.6s.wav', 'speech-24k.opus', 'ffmpeg-libopus-16k.opus']) {
    t.test(`${name} plays to its end on a page of another origin, and can be sought in`, async t => {
      const page = await browser.newPage()
      await page.goto(`http://localhost:${port}/`)
      const url = await store(name)
      const played = await play(page, url)
      const expected = DURATIONS[name] ?? 0
      t.ok(Math.abs(played.duration - expected) <= TOLERANCE_SECONDS, `it lasts ${played.duration} s, expected ${expected} s`)
      t.ok(Math.abs(played.soughtTo - expected / 2) <= TOLERANCE_SECONDS, `after the seek it stands at ${played.soughtTo} s`)
      t.equal(played.error, null)
      t.ok(played.ended, 'and it plays to its end')
      await page.close()
    })
  }

  t.test('a signed URL opened as a page plays inline', async t => {
    const page = await browser.newPage()
    const answer = await page.goto(await store('pcm16-16k.wav'))
    t.equal(answer?.status(), 200)
    await page.waitForFunction('document.querySelector("video, audio")?.readyState >= 1')
    t.ok(Math.abs(Number(await page.evaluate('document.querySelector("video, audio").duration')) - 6.712) <= TOLERANCE_SECONDS)
    await page.close()
  })

  t.test('with ?download=1 it is saved under a name that tells caller and time', async t => {
    const page = await browser.newPage()
    await page.goto(`http://localhost:${port}/`)
    const url = await store('speech-24k.opus')
    const [download] = await Promise.all([
      page.waitForEvent('download'),
      page.evaluate(`{ const link = document.createElement('a'); link.href = ${JSON.stringify(`${url}?download=1`)}; document.body.append(link); link.click() }`)
    ])
    t.match(download.suggestedFilename(), /^alice@sip\.example\.org \d{4}-\d\d-\d\d \d\d\.\d\d\.\d\d\.opus$/)
    const chunks: Buffer[] = []
    for await (const chunk of await download.createReadStream()) chunks.push(Buffer.from(chunk))
    t.ok(Buffer.concat(chunks).equals(await sample('ok/speech-24k.opus')), 'every byte of it')
    await page.close()
  })
})

interface Played { duration: number, soughtTo: number, ended: boolean, error: string | null }

async function play (page: Page, url: string): Promise<Played> {
  return await page.evaluate<Played>(`(async () => {
    const audio = new Audio(${JSON.stringify(url)})
    audio.muted = true
    const event = name => new Promise((resolve, reject) => {
      audio.addEventListener(name, resolve, { once: true })
      audio.addEventListener('error', () => reject(new Error(audio.error.message)), { once: true })
    })
    await event('loadedmetadata')
    const { duration } = audio
    const sought = event('seeked')
    audio.currentTime = duration / 2
    await sought
    const soughtTo = audio.currentTime
    audio.currentTime = Math.max(0, duration - 0.3)
    const ended = event('ended')
    await audio.play()
    await ended
    return { duration, soughtTo, ended: audio.ended, error: audio.error && audio.error.message }
  })()`)
}
