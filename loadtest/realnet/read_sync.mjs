// Reads a relay with npm @atproto/sync, which verifies signatures and proofs, and says what it has seen.
//
//   node read_sync.mjs ws://RELAY http://PLC
import { IdResolver } from '@atproto/identity'
import { Firehose, MemoryRunner } from '@atproto/sync'

const [service, plcUrl] = process.argv.slice(2)
const say = (what) => console.log(JSON.stringify(what))
const firehose = new Firehose({
  service,
  runner: new MemoryRunner({ startCursor: 0 }),
  // Its own fetch knows only https.
  idResolver: new IdResolver({ plcUrl, fetch: (url, init) => fetch(url, init) }),
  // Handles under .test are in no DNS.
  unauthenticatedHandles: true,
  handleEvent: async (event) => {
    const path = event.collection ? `${event.collection}/${event.rkey}` : undefined
    say({ kind: event.event, seq: event.seq, did: event.did, path })
  },
  onError: (error) => say({ error: `${error.name}: ${error.message}: ${error.cause}` }),
})
say({ started: true })
process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
firehose.start()
