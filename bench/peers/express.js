import { randomUUID } from 'node:crypto'
import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import express from 'express'
import multer from 'multer'

/** Express with multer's disk storage, and express.static. Nothing is synced, no row is written. */
const { DATA_DIR: data, PORT: port } = process.env
const files = join(data, 'files')
await mkdir(files, { recursive: true })

const storage = multer.diskStorage({ destination: files, filename: (_request, _file, done) => { done(null, `${randomUUID()}.wav`) } })
const upload = multer({ storage, limits: { fileSize: 15_000_000 } })
const app = express()
app.use('/files', express.static(files))
app.post('/voicemails', upload.single('file'), (request, response) => {
  response.status(201).json({ url: `/files/${request.file.filename}` })
})
app.listen(Number(port), '127.0.0.1')
