import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { promisify } from 'node:util'

/**
 * Where V8 notes, in the head of what it compiled, a hash of the flags that it ran with. Before it are a magic number and the version,
 * which are the same in all that one V8 compiles, and a hash of the source.
 */
const FLAGS_AT = 12
const FLAGS_LENGTH = 4
const SAME_LENGTH = 8

/** V8 draws a seed for its hashes at every start, and what it compiles comes out in another order with each. */
export const SEED = '--hash-seed=1'

/**
 * What was compiled with the seed above has the same bytes each time, but V8 refuses it where it runs without that flag. As it reads
 * compiled code under another seed than it was compiled under at every start, it may just as well take this: the hash of the flags is
 * made the one that it has without.
 */
export async function forgetSeed (blob: string): Promise<void> {
  const [seeded, plain] = [await headOf(SEED), await headOf()]
  const content = await readFile(blob)
  const at = content.indexOf(seeded.subarray(0, SAME_LENGTH))
  const flags = content.subarray(at + FLAGS_AT, at + FLAGS_AT + FLAGS_LENGTH)
  if (at < 0 || !flags.equals(seeded.subarray(FLAGS_AT))) throw new Error('This version of Node writes compiled code in another way.')
  plain.copy(content, at + FLAGS_AT, FLAGS_AT)
  await writeFile(blob, content)
}

/** The head of something that was compiled with a flag. */
async function headOf (...flags: string[]): Promise<Buffer> {
  const script = 'process.stdout.write(new (require("vm").Script)("0").createCachedData().toString("hex"))'
  const { stdout } = await promisify(execFile)(process.execPath, [...flags, '-e', script])
  return Buffer.from(stdout, 'hex').subarray(0, FLAGS_AT + FLAGS_LENGTH)
}
