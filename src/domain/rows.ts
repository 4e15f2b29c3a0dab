/** The rows as the domain hands them on; routes do not import from stores. */
export type { Account } from '../stores/account-store.js'
export type { ApiKeyRow as ApiKey, VoicemailRow as Voicemail } from '../stores/tables.js'
