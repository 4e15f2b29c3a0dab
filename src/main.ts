#!/usr/bin/env node
import { runProgram } from './commands/program.js'

// Whatever this program makes is for its own user alone.
process.umask(0o077)
process.exitCode = await runProgram({
  args: process.argv.slice(2),
  env: process.env,
  clock: Date.now,
  output: {
    print: line => { process.stdout.write(`${line}\n`) },
    tell: line => { process.stderr.write(`${line}\n`) }
  }
})
