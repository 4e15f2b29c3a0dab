import { gatherTurn } from './turn.js'

/** Writes the lines that come in one turn of the event loop at once: a call of the system for each costs as much as the line itself. */
export function gatherLines (write: (text: string) => void): { write: (line: string) => void } {
  return { write: gatherTurn<string>(lines => { write(lines.join('')) }) }
}
