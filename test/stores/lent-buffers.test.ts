import fc from 'fast-check'
import t from 'tap'
import { createLending, type LentBuffer } from '../../src/stores/lent-buffers.js'

t.test('memory is as long as was asked for, and nobody else has it until it is given back', async () => {
  const steps = fc.array(fc.oneof(
    fc.record({ length: fc.integer({ min: 1, max: 300_000 }) }),
    fc.record({ giveBack: fc.nat({ max: 20 }) })
  ), { maxLength: 60 })
  fc.assert(fc.property(steps, steps => {
    const lend = createLending()
    const out: Array<LentBuffer & { mark: number }> = []
    return steps.every((step, n) => {
      if ('length' in step) {
        const lent = lend(step.length)
        lent.bytes.fill(n)
        out.push({ ...lent, mark: n })
        return lent.bytes.length === step.length
      }
      const [returned] = out.splice(step.giveBack % Math.max(1, out.length), 1)
      returned?.giveBack()
      return out.every(({ bytes, mark }) => bytes.every(byte => byte === mark))
    })
  }), { numRuns: 200 })
})

t.test('what was given back last is lent first, and no more is kept than eight megabytes', async t => {
  const lend = createLending()
  const length = 256 * 1024
  const lent = Array.from({ length: 40 }, () => lend(length))
  for (const { giveBack } of lent) giveBack()
  const known = new Set(lent.map(({ bytes }) => bytes.buffer))
  const again = Array.from({ length: 40 }, () => lend(length))
  t.equal(again[0]?.bytes.buffer, lent[31]?.bytes.buffer)
  t.equal(again.filter(({ bytes }) => known.has(bytes.buffer)).length, 32)
})
