/** The HMAC-SHA-256 that a signed URL of the peers carries. */
export function signatureOf (key: string, method: string, name: string, expires: string): string
