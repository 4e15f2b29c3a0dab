#!/usr/bin/env node
import { runProgram } from './commands/program.js'

// Uploads wait for the disk in libuv's pool, which has four threads unless told otherwise before its first use: too few for what a
// disk takes at once. With sixteen the threads of one core get in each other's way. What the operator set stands.
process.env['UV_THREADPOOL_SIZE'] ||= '8'
// Whatever this program makes is for its own user alone.
process.umask(0o077)
// Whoever read the output has gone (`| head`): there is nobody to tell.
process.stdout.on('error', () => { process.exitCode = 1 })
void runProgram({
  args: process.argv.slice(2),
  env: process.env,
  clock: Date.now,
  output: {
    print: line => { process.stdout.write(`${line}\n`) },
    tell: line => { process.stderr.write(`${line}\n`) },
    progress: process.stderr.isTTY ? (line, isLast) => { process.stderr.write(`\r${line}${isLast ? '\n' : ''}`) } : undefined
  }
}).then(exitCode => { process.exitCode = exitCode })
