// A PLC directory and two PDSs, and a story on them: story.mjs, or load.mjs.
//
//   node realnet.mjs DATA CRAWLER STORY
//
// Says on stdout, a JSON object a line, what has happened; goes on when a line comes on stdin; ends when stdin does.
import readline from 'node:readline'
import { lastSeq, start } from './servers.mjs'

const [data, crawler, story] = process.argv.slice(2)
const { tell } = await import(`./${story}`)
const say = (what) => console.log(JSON.stringify(what))
const lines = readline.createInterface({ input: process.stdin })
lines.on('close', () => process.exit(0))
const heard = lines[Symbol.asyncIterator]()
const goOn = () => heard.next()

const { plcUrl, hosts } = await start(2, data, [crawler])
say({ ready: true, plc: plcUrl, hosts: hosts.map(({ host }) => host) })

await goOn()
for (const { server } of hosts) server.ctx.crawlers.requestCrawl()
say({ crawl: true })

await goOn()
const accounts = await tell(hosts, async (name, act, more = {}) => {
  try {
    const result = await act()
    say({ step: name, seqs: await Promise.all(hosts.map(lastSeq)), ...more })
    await goOn()
    return result
  } catch (error) {
    say({ failed: name, why: String(error?.stack ?? error) })
    await goOn()
    throw error
  }
})
say({ done: true, accounts })
