import fs from 'node:fs'
import { join } from 'node:path'
import t from 'tap'

// Taken up when the module is loaded: a system that writes no more than five bytes at a time.
const { writev } = fs
let writes = 0
const sparing = (fd: number, pieces: Uint8Array[], position: number | null, done: Parameters<typeof writev>[3]): void => {
  writes += 1
  writev(fd, [Buffer.concat(pieces).subarray(0, 5)], position, done)
}
Object.assign(fs, { writev: Object.defineProperties(sparing, Object.getOwnPropertyDescriptors(writev)) })
const { disk } = await import('../../src/stores/disk.js')
Object.assign(fs, { writev })

t.test('all pieces are written, in their order, where the system takes fewer bytes than it is given', async t => {
  const path = join(t.testdir(), 'file')
  const fd = await disk.open(path, 'wx', 0o600)
  await disk.write(fd, ['abc', '', 'defghijkl', 'm', 'nopqr', ''].map(text => Buffer.from(text)))
  await disk.write(fd, [])
  await disk.write(fd, [Buffer.from('stu')])
  disk.close(fd)
  t.equal(fs.readFileSync(path, 'latin1'), 'abcdefghijklmnopqrstu')
  t.equal(writes, 5)
})
