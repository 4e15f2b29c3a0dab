import { join } from 'node:path'

/** Where files are in a data folder. Names come from this program, never from a request. */
export interface AudioLayout {
  incomingFolder: string
  audioFolder: string
  /** Where `check --repair` puts what it does not know. */
  lostFolder: string
  incomingPath: (fileName: string) => string
  /** Below the folder of audio: `ab/abcdef...`. */
  relativePath: (fileName: string) => string
  audioPath: (fileName: string) => string
}

export function layoutOf (dataFolder: string): AudioLayout {
  const incomingFolder = join(dataFolder, 'incoming')
  const audioFolder = join(dataFolder, 'audio')
  const relativePath = (fileName: string): string => `${shardOf(fileName)}/${fileName}`
  return {
    incomingFolder,
    audioFolder,
    lostFolder: join(dataFolder, 'lost+found'),
    incomingPath: fileName => join(incomingFolder, fileName),
    relativePath,
    audioPath: fileName => join(audioFolder, relativePath(fileName))
  }
}

/** Files are spread over folders by the first two characters of their names. */
export function shardOf (fileName: string): string {
  return fileName.slice(0, 2)
}
