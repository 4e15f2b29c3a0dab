/** Gathers what comes in one turn of the event loop, and hands it all to `take` at its end, in the order in which it came. */
export function gatherTurn<T> (take: (all: T[]) => void): (one: T) => void {
  let gathered: T[] = []
  const end = (): void => {
    const all = gathered
    gathered = []
    take(all)
  }
  return one => {
    if (gathered.push(one) === 1) setImmediate(end)
  }
}
