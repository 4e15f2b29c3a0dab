import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { promisify } from 'node:util'
import type { CertificateFiles } from '../src/certificate.js'

/** Makes a certificate for localhost that signs itself, `NAME.cert.pem` and `NAME.key.pem` in a folder. */
export async function makeCertificate (folder: string, name = 'tls'): Promise<CertificateFiles> {
  const files = { certFile: join(folder, `${name}.cert.pem`), keyFile: join(folder, `${name}.key.pem`) }
  await promisify(execFile)('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', `/CN=${name}`,
    '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1', '-keyout', files.keyFile, '-out', files.certFile
  ])
  return files
}
