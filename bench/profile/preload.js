import { renameSync, writeFileSync } from 'node:fs'
import { Session } from 'node:inspector'
import { join } from 'node:path'

/** Loaded into a server before its own program: SIGUSR2 begins a profile of the main thread, the next one ends it and writes PROFILE_FOLDER/PID.cpuprofile. */
const SAMPLING_US = 200
const { PROFILE_FOLDER: folder } = process.env
const file = join(folder, `${process.pid}.cpuprofile`)
const session = new Session()
session.connect()
session.post('Profiler.enable')
session.post('Profiler.setSamplingInterval', { interval: SAMPLING_US })
let isRunning = false
process.on('SIGUSR2', () => {
  isRunning = !isRunning
  if (isRunning) {
    session.post('Profiler.start')
    return
  }
  session.post('Profiler.stop', (error, outcome) => {
    if (error !== null) throw new Error(error.message)
    writeFileSync(`${file}.draft`, JSON.stringify(outcome.profile))
    renameSync(`${file}.draft`, file)
  })
})
