import { chmod, chown, link, mkdir, readdir, readFile, rename, rm, stat, symlink, truncate, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { readCacheFolders } from '../../src/config.js'
import { placeFiles } from '../../src/installation/cache.js'

const FILES = {
  sha256: 'c0ffee',
  files: [{ path: 'one', content: Buffer.from('the first') }, { path: 'deep/two', content: Buffer.from('the second') }]
}
const same = (folder: string): string => folder

// What the fallback makes is the test's too.
process.env['TMPDIR'] = t.testdir()
const FALLBACK = join(t.testdirName, `voicemaild-${process.geteuid?.()}`, FILES.sha256)

/** Whoever runs the tests, what belongs to somebody else. */
async function anothers (folder: string): Promise<string> {
  if (process.geteuid?.() !== 0) return '/etc'
  await mkdir(folder)
  await chown(folder, 65_534, 65_534)
  return folder
}

async function isWhole (folder: string): Promise<boolean> {
  const texts = await Promise.all(['one', 'deep/two'].map(async path => await readFile(join(folder, path), 'utf8')))
  return texts.join() === 'the first,the second'
}

t.test('files are placed in a folder of the user alone, by the name of their content, and stay', async t => {
  const cache = join(t.testdir(), 'missing', 'voicemaild')
  const folder = placeFiles(FILES, [cache], same)
  t.equal(folder, join(cache, 'c0ffee'))
  t.ok(await isWhole(folder))
  for (const [path, mode] of [['', 0o700], ['deep', 0o700], ['one', 0o600], ['deep/two', 0o600]] as const) {
    t.equal((await stat(join(folder, path))).mode & 0o777, mode, path)
  }
  t.equal((await stat(cache)).mode & 0o777, 0o700)
  const { ino } = await stat(join(folder, 'one'))
  t.equal(placeFiles(FILES, [cache], same), folder)
  t.equal((await stat(join(folder, 'one'))).ino, ino, 'what fits is not written again')
})

t.test('a file that is not as it was placed is made anew', async t => {
  const cache = join(t.testdir({ elsewhere: 'the first' }), 'cache')
  const one = join(placeFiles(FILES, [cache], same), 'one')
  for (const [name, spoil] of [
    ['changed', async () => { await writeFile(one, 'the f1rst') }],
    ['half-written', async () => { await truncate(one, 4) }],
    ['empty', async () => { await truncate(one, 0) }],
    ['longer', async () => { await writeFile(one, 'the first and more') }],
    ['for others to write', async () => { await chmod(one, 0o620) }],
    ['a link to the same', async () => {
      await rm(one)
      await symlink(join(t.testdirName, 'elsewhere'), one)
    }],
    ['also somewhere else', async () => { await link(one, join(t.testdirName, 'second-name')) }]
  ] as const) {
    await spoil()
    const folder = placeFiles(FILES, [cache], same)
    t.equal(folder, join(cache, 'c0ffee'), name)
    t.ok(await isWhole(folder), name)
    const { mode, nlink } = await stat(one)
    t.strictSame([mode & 0o777, nlink], [0o600, 1], name)
    t.strictSame((await readdir(folder)).sort(), ['deep', 'one'], 'nothing unfinished is left')
  }
  t.equal(await readFile(join(t.testdirName, 'elsewhere'), 'utf8'), 'the first', 'what a link pointed to is left alone')
})

t.test('a cache that others could change is not used, but the next', async t => {
  const dir = t.testdir({ file: '', target: {}, open: {}, above: { cache: {} }, broken: { c0ffee: { one: {} } }, inside: { c0ffee: {} }, linked: {} })
  await symlink(join(dir, 'target'), join(dir, 'link'))
  await symlink(join(dir, 'target'), join(dir, 'linked', 'c0ffee'))
  await chmod(join(dir, 'open'), 0o770)
  await chmod(join(dir, 'above'), 0o777)
  await chmod(join(dir, 'inside', 'c0ffee'), 0o702)
  const foreign = await anothers(join(dir, 'foreign'))
  for (const [name, cache] of [
    ['a file', join(dir, 'file')], ['below a file', join(dir, 'file', 'cache')], ['a link', join(dir, 'link')], ['for the group to write', join(dir, 'open')],
    ['below a folder that all may write', join(dir, 'above', 'cache')], ["another user's", foreign], ["below another user's", join(foreign, 'cache')],
    ['with a folder in place of a file', join(dir, 'broken')], ['with a folder inside that others may write', join(dir, 'inside')],
    ['with a link inside', join(dir, 'linked')], ['too far from what is there', join(dir, 'no', 'such', 'folder')]
  ] as const) {
    t.equal(placeFiles(FILES, [cache, join(dir, 'good')], same), join(dir, 'good', 'c0ffee'), name)
  }
  t.strictSame(await readdir(join(dir, 'target')), [], 'nothing went where a link points to')
  t.equal(placeFiles(FILES, [join(dir, 'open')], same), FALLBACK, 'at last one in the folder of temporary files')
  t.ok(await isWhole(FALLBACK))
})

t.test('where a library must not be loaded, the next cache is used, and at last one line tells of all', async t => {
  const dir = t.testdir()
  const noexec = (folder: string): string => {
    if (folder.startsWith(join(dir, 'noexec'))) throw new Error('failed to map segment from shared object')
    return folder
  }
  t.equal(placeFiles(FILES, [join(dir, 'noexec'), join(dir, 'good')], noexec), join(dir, 'good', 'c0ffee'))
  t.throws(() => placeFiles(FILES, [join(dir, 'noexec')], () => { throw new Error('no loading') }), {
    message: /^No folder for .*XDG_CACHE_HOME.*noexec \(no loading\); .*voicemaild-\d+ \(no loading\); .*voicemaild-\* \(no loading\)\.$/, code: undefined
  })
})

t.test('the name of the stay in the folder of temporary files may be taken by somebody else', async t => {
  await rename(join(FALLBACK, '..'), join(t.testdir(), 'away'))
  await symlink(t.testdirName, join(FALLBACK, '..'))
  const folder = placeFiles(FILES, [], same)
  t.match(folder, /voicemaild-\w{6}\/c0ffee$/)
  t.ok(await isWhole(folder))
})

t.test("the service's cache goes before the user's, and the package's comes last, where there is one; relative paths are none", async t => {
  const ofPackage = t.testdir()
  const home = readCacheFolders({ CACHE_DIRECTORY: undefined, XDG_CACHE_HOME: undefined }, ofPackage)
  t.match(home, [/\/\.cache\/voicemaild$/, `${ofPackage}/files`])
  const folders = { CACHE_DIRECTORY: '/c/one:/c/other', XDG_CACHE_HOME: '/x' }
  t.strictSame(readCacheFolders(folders, ofPackage), ['/c/one/files', '/x/voicemaild', `${ofPackage}/files`])
  t.strictSame(readCacheFolders(folders, join(ofPackage, 'nowhere')), ['/c/one/files', '/x/voicemaild'])
  t.strictSame(readCacheFolders({ CACHE_DIRECTORY: 'a', XDG_CACHE_HOME: 'b' }, ofPackage), home)
})
