import fc from 'fast-check'
import t from 'tap'
import { createGathering } from '../../src/stores/gathered-writes.js'

t.test('what is written is what was added, in fewer pieces, whatever the chunks and however many write at once', async () => {
  const sizes = fc.array(fc.oneof(fc.integer({ min: 1, max: 50 }), fc.integer({ min: 1, max: 70_000 }), fc.constantFrom(4096, 65_536, 262_144, 262_145, 600_000)), { maxLength: 30 })
  await fc.assert(fc.asyncProperty(fc.array(sizes, { minLength: 1, maxLength: 40 }), async writers => {
    const gather = createGathering()
    await Promise.all(writers.map(async sizes => {
      const written: Buffer[] = []
      const gathered = gather(async pieces => {
        await new Promise(resolve => { setImmediate(resolve) })
        // Only now: the bytes must not change before the write has ended.
        written.push(Buffer.concat(pieces))
      })
      const chunks = sizes.map((size, n) => Buffer.alloc(size, n + 1))
      for (const chunk of chunks) {
        await gathered.add(chunk)
        if (written.length > chunks.length) throw new Error('more writes than chunks')
      }
      await gathered.flush()
      gathered.end()
      if (!Buffer.concat(written).equals(Buffer.concat(chunks))) throw new Error('other bytes')
    }))
  }), { numRuns: 30 })
})

t.test('small chunks are written together, and a thousand that are silent hold no more than a few', async t => {
  const gather = createGathering()
  let writes = 0
  const one = gather(async () => { writes += 1 })
  for (let n = 0; n < 256 * 1024; n += 64) await one.add(Buffer.alloc(64))
  t.equal(writes, 1, '4096 chunks')
  one.end()

  let heldBytes = 0
  const many = Array.from({ length: 1000 }, () => gather(async pieces => { heldBytes -= Buffer.concat(pieces).length }))
  const chunk = Buffer.alloc(10_000)
  for (let n = 0; n < 10; n++) {
    for (const each of many) {
      heldBytes += chunk.length
      await each.add(chunk)
    }
  }
  t.ok(heldBytes > 0 && heldBytes <= 8 * 1024 * 1024, `${heldBytes} of 100,000,000 bytes`)
  for (const each of many) each.end()
})
