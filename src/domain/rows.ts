/** The rows as the domain hands them on; routes do not import from stores. */
export type { AccountRow as Account, ApiKeyRow as ApiKey, EventRow as Event, VoicemailRow as Voicemail } from '../stores/tables.js'
