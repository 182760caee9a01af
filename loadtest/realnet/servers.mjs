// A PLC directory and PDSs, the real programs, on loopback and in this process.
process.env.LOG_ENABLED ??= 'false'
process.env.NODE_ENV ??= 'production'

import crypto from 'node:crypto'
import fs from 'node:fs'
import net from 'node:net'
import path from 'node:path'
import { Secp256k1Keypair } from '@atproto/crypto'
import plc from '@did-plc/server'

// Imported late, because it reads the environment when it is loaded.
const { PDS } = await import('@atproto/pds')

export const ADMIN_PASSWORD = 'admin-pass'

// The servers listen on all addresses of the machine; here nothing leaves loopback.
const listen = net.Server.prototype.listen
net.Server.prototype.listen = function (...args) {
  if (typeof args[0] === 'number' && typeof args[1] !== 'string') args.splice(1, 0, '127.0.0.1')
  return listen.apply(this, args)
}

function freePort() {
  return new Promise((resolve, reject) => {
    const server = net.createServer()
    server.once('error', reject)
    server.listen(0, '127.0.0.1', () => {
      const { port } = server.address()
      server.close(() => resolve(port))
    })
  })
}

/** Starts a directory and `count` PDSs that keep their data under `data` and announce themselves to `crawlers`. */
export async function start(count, data, crawlers) {
  const plcPort = await freePort()
  await plc.PlcServer.create({ db: plc.Database.mock(), port: plcPort }).start()
  const plcUrl = `http://localhost:${plcPort}`
  const hosts = []
  for (let i = 0; i < count; i++) hosts.push(await startPds(i, data, plcUrl, crawlers))
  return { plcUrl, hosts }
}

async function startPds(number, data, plcUrl, crawlers) {
  const port = await freePort()
  const dir = path.join(data, `pds${number}`)
  fs.mkdirSync(dir, { recursive: true })
  const server = await PDS.fromEnv({
    devMode: true,
    port,
    hostname: 'localhost',
    dataDirectory: dir,
    blobstoreDiskLocation: path.join(dir, 'blobs'),
    adminPassword: ADMIN_PASSWORD,
    jwtSecret: 'jwt-secret',
    dpopSecret: crypto.randomBytes(32).toString('hex'),
    plcRotationKeyK256PrivateKeyHex: crypto.randomBytes(32).toString('hex'),
    didPlcUrl: plcUrl,
    serviceHandleDomains: [`.pds${number}.test`, '.test'],
    inviteRequired: false,
    disableSsrfProtection: true,
    crawlers,
    didCacheStaleTTL: 1000,
    didCacheMaxTTL: 2000,
    // Must be there; nothing here asks for it.
    bskyAppViewUrl: 'https://appview.invalid',
    bskyAppViewDid: 'did:example:invalid',
  })
  await server.start()
  // By itself it names its host without the port.
  server.ctx.crawlers.hostname = `localhost:${port}`
  return { host: `localhost:${port}`, server }
}

/** The seq of the last event that a PDS has. */
export async function lastSeq(pds) {
  return (await pds.server.ctx.sequencer.curr()) ?? 0
}

/** Sends a `#sync` of the account's state. */
export async function sequenceSync(pds, did) {
  const data = await pds.server.ctx.actorStore.read(did, (store) => store.repo.getSyncEventData())
  await pds.server.ctx.sequencer.sequenceSync(did, data)
}

/** What the PDS's own script for new signing keys does: directory, key file, empty commit, `#identity`, `#sync`. */
export async function rotateSigningKey(pds, did) {
  const { actorStore, plcClient, plcRotationKey, sequencer } = pds.server.ctx
  const key = await Secp256k1Keypair.create({ exportable: true })
  const { keyLocation } = await actorStore.getLocation(did)
  fs.writeFileSync(keyLocation, await key.export())
  await plcClient.updateAtprotoKey(did, plcRotationKey, key.did())
  const data = await actorStore.transact(did, async (store) => {
    await store.repo.processWrites([])
    return store.repo.getSyncEventData()
  })
  await sequencer.sequenceIdentity(did)
  await sequencer.sequenceSync(did, data)
}

/** Writes what another PDS recommends into the directory, signed by this one. */
export async function updateDirectory(pds, did, recommended) {
  const { plcClient, plcRotationKey } = pds.server.ctx
  await plcClient.updateData(did, plcRotationKey, (data) => ({
    ...data,
    rotationKeys: recommended.rotationKeys,
    alsoKnownAs: recommended.alsoKnownAs,
    verificationMethods: recommended.verificationMethods,
    services: recommended.services,
  }))
}
