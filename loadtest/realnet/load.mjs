// Two PDSs that are written to all the time; meanwhile one account's key is rotated, another moves, a third is
// taken down by its PDS's operator, and a fourth by the relay's.
import { move, newAccount, takedown, writePost } from './calls.mjs'
import { rotateSigningKey } from './servers.mjs'

const WRITERS = 4
const PAUSE_MS = 60

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms))

/** An account that writes until it is told to stop. */
class Writer {
  constructor(pds, account, name) {
    Object.assign(this, { pds, account, name, written: 0, refused: 0, running: false })
  }

  start() {
    this.running = true
    this.ended = (async () => {
      while (this.running) {
        try {
          await writePost(this.pds, this.account, `${this.name} ${this.written}`)
          this.written += 1
        } catch (error) {
          // Only an account that is taken down may find that it can't write.
          if (!this.mayFail) throw error
          this.refused += 1
        }
        await sleep(PAUSE_MS)
      }
    })()
  }

  /** Waits until it has written `count` more posts. */
  async writes(count) {
    for (const until = this.written + count; this.written < until; ) await sleep(PAUSE_MS)
  }

  async stop() {
    this.running = false
    await this.ended
  }
}

/** Tells the story; `step` runs one part of it and waits until what had been sent by its end has been seen. */
export async function tell([a, b], step) {
  const writer = async (pds, name, number) =>
    new Writer(pds, await step(`create ${name}`, () => newAccount(pds, name, number)), name)
  const crowd = []
  for (let i = 0; i < WRITERS; i++) {
    crowd.push(await writer(a, `ann${i}`, 0), await writer(b, `ben${i}`, 1))
  }
  const rita = await writer(a, 'rita', 0)
  const carol = await writer(a, 'carol', 0)
  const tom = await writer(b, 'tom', 1)
  const all = [...crowd, rita, carol, tom]
  const started = Date.now()
  for (const each of all) each.start()
  await step('all write', () => sleep(2_000))

  // Who rotates or moves holds still until what it has written is through: whoever reads it later asks the directory
  // for the key, and finds the new one. The others write on.
  await step('rita holds still', () => rita.stop())
  await step('rotate the signing key of rita', async () => {
    await rotateSigningKey(a, rita.account.did)
    rita.start()
    await rita.writes(3)
  })

  await step('carol holds still', () => carol.stop())
  const moved = await move([a, b], carol.account, 'carol', step)
  await step('carol writes on the new host', async () => {
    Object.assign(carol, { pds: b, account: moved })
    carol.start()
    await carol.writes(3)
  })

  // In the middle of its writing.
  tom.mayFail = true
  await step('tom is taken down', async () => {
    await takedown(b, tom.account.did, true)
    while (tom.refused === 0) await sleep(PAUSE_MS)
  })
  await step('the takedown is taken back', async () => {
    await takedown(b, tom.account.did, false)
    await tom.writes(3)
  })
  tom.mayFail = false

  // The relay's operator acts after the step that says so.
  const [ann0] = crowd
  const { did } = ann0.account
  await step('time for the relay to take ann0 down', () => ann0.writes(1), { operator: 'takedown', did })
  await step('ann0 writes, unheard', () => ann0.writes(5), { operator: 'restore', did })
  await step('ann0 is heard again', () => ann0.writes(3))

  await step('all stop', () => Promise.all(all.map((each) => each.stop())))
  const seconds = (Date.now() - started) / 1000
  const written = all.reduce((sum, each) => sum + each.written, 0)
  return { written, seconds, rita: rita.account.did, carol: carol.account.did, tom: tom.account.did }
}
