import { createPrivateKey, X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import { createSecureContext } from 'node:tls'

/** Where a certificate and its key are, in PEM. Symbolic links are followed each time, as certbot's want. */
export interface CertificateFiles { certFile: string, keyFile: string }

/** A certificate with its chain, and its key, in PEM; they fit each other. */
export interface Certificate { cert: string, key: string }

/** Why there is no certificate to take: in which of the two files, and what is wrong with it, in words that follow `found`. */
export class CertificateError extends Error {
  override readonly name = 'CertificateError'

  constructor (readonly file: keyof Certificate, readonly found: string) {
    super(`${file === 'cert' ? 'the certificate' : 'its key'}: found ${found}`)
  }
}

/** Reads both files, as small as they are, at once; returns `known` where they hold nothing else. Throws CertificateError where TLS could not be spoken with them. */
export function readCertificate ({ certFile, keyFile }: CertificateFiles, known?: Certificate): Certificate {
  const read = (of: keyof Certificate, path: string): { text: string, wrong: (what: string) => CertificateError } => {
    const wrong = (what: string): CertificateError => new CertificateError(of, `${JSON.stringify(path)}, which ${what}`)
    try {
      return { text: readFileSync(path, 'utf8'), wrong }
    } catch {
      throw wrong('cannot be read')
    }
  }
  const [cert, key] = [read('cert', certFile), read('key', keyFile)]
  if (cert.text === known?.cert && key.text === known.key) return known
  const first = attempt(() => new X509Certificate(cert.text), () => cert.wrong('holds none'))
  const privateKey = attempt(() => createPrivateKey(key.text), () => key.wrong('holds none, or one with a passphrase'))
  if (!first.checkPrivateKey(privateKey)) throw key.wrong('is that of another certificate')
  // The chain, and what OpenSSL thinks too weak.
  attempt(() => createSecureContext({ cert: cert.text, key: key.text }), () => cert.wrong('OpenSSL does not take'))
  return Object.freeze({ cert: cert.text, key: key.text })
}

function attempt<T> (make: () => T, failed: () => CertificateError): T {
  try {
    return make()
  } catch {
    throw failed()
  }
}
