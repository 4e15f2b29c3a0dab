import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { disk } from '../../src/stores/disk.js'
import { createFolderSync, syncPath } from '../../src/stores/disk-sync.js'

/** Holds every sync of the disk back until it is let go, and tells how many there were. */
function holdSyncs (t: Test) {
  const { sync } = disk
  const held: Array<{ pass: () => void, fail: (error: Error) => void }> = []
  let begun = 0
  let whenBegun = (): void => {}
  disk.sync = async () => {
    begun += 1
    const done = new Promise<void>((resolve, reject) => { held.push({ pass: resolve, fail: reject }) })
    whenBegun()
    await done
  }
  t.teardown(() => { disk.sync = sync })
  return {
    begun: () => begun,
    /** Resolves when so many syncs have begun. */
    reached: async (count: number): Promise<void> => {
      await new Promise<void>(resolve => {
        whenBegun = () => { if (begun >= count) resolve() }
        whenBegun()
      })
    },
    next: () => held.shift()
  }
}

t.test('who comes while a folder is being synced shares the next sync of it, and is not told of the one that runs', async t => {
  const folder = t.testdir()
  const syncs = holdSyncs(t)
  const sync = createFolderSync()
  const done: string[] = []
  const ask = async (name: string): Promise<void> => { await sync(folder).then(() => { done.push(name) }) }
  const first = ask('first')
  await syncs.reached(1)
  const others = [ask('second'), ask('third')]
  syncs.next()?.pass()
  await first
  t.strictSame(done, ['first'], 'what came later may have been too late for it')
  await syncs.reached(2)
  const last = ask('last')
  syncs.next()?.pass()
  await Promise.all(others)
  await syncs.reached(3)
  t.strictSame(done, ['first', 'second', 'third'])
  syncs.next()?.pass()
  await last
  t.equal(syncs.begun(), 3)
})

t.test('each folder is synced by itself', async t => {
  const folder = t.testdir()
  for (const name of ['a', 'b']) mkdirSync(join(folder, name))
  const syncs = holdSyncs(t)
  const sync = createFolderSync()
  const both = Promise.all(['a', 'b'].map(async name => { await sync(join(folder, name)) }))
  await syncs.reached(2)
  syncs.next()?.pass()
  syncs.next()?.pass()
  await both
  t.equal(syncs.begun(), 2)
})

t.test('a sync that fails is told to all who waited for it, and to nobody else', async t => {
  const folder = t.testdir()
  const syncs = holdSyncs(t)
  const sync = createFolderSync()
  const outcome = async (): Promise<string> => await sync(folder).then(() => 'synced', (error: unknown) => error instanceof Error ? error.message : '')
  const first = outcome()
  await syncs.reached(1)
  const others = [outcome(), outcome()]
  syncs.next()?.fail(new Error('EIO'))
  t.equal(await first, 'EIO')
  await syncs.reached(2)
  syncs.next()?.fail(new Error('ENOSPC'))
  t.strictSame(await Promise.all(others), ['ENOSPC', 'ENOSPC'])
  const later = outcome()
  await syncs.reached(3)
  syncs.next()?.pass()
  t.equal(await later, 'synced')
})

t.test('a folder that is not there is told, and the next one that is there is synced', async t => {
  const folder = t.testdir()
  const sync = createFolderSync()
  await t.rejects(sync(join(folder, 'gone')), { code: 'ENOENT' })
  await sync(folder)
  await syncPath(folder)
})
