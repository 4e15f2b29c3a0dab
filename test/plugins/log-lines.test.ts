import t from 'tap'
import { gatherLines } from '../../src/plugins/log-lines.js'

t.test('lines of one turn of the event loop are written at once, in their order, and none waits for another turn', async t => {
  const written: string[] = []
  const turn = async (): Promise<void> => { await new Promise<void>(resolve => { setImmediate(resolve) }) }
  const { write } = gatherLines(text => { written.push(text) })
  write('one\n')
  write('two\n')
  t.strictSame(written, [])
  await turn()
  t.strictSame(written, ['one\ntwo\n'])
  await turn()
  write('three\n')
  await turn()
  t.strictSame(written, ['one\ntwo\n', 'three\n'])
})
