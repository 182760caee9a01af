// What people and operators do on two PDSs, step by step: every kind of event that a real host sends.
import { ADMIN_PASSWORD, rotateSigningKey, sequenceSync, updateDirectory } from './servers.mjs'

async function call(pds, method, { body, query, token, admin, bytes, type } = {}) {
  const url = new URL(`http://${pds.host}/xrpc/${method}`)
  for (const [key, value] of Object.entries(query ?? {})) url.searchParams.set(key, value)
  const headers = {}
  if (token) headers.authorization = `Bearer ${token}`
  if (admin) headers.authorization = 'Basic ' + Buffer.from(`admin:${ADMIN_PASSWORD}`).toString('base64')
  // A body of null is a POST without content: some methods insist on it, others on an empty object.
  const json = body ? JSON.stringify(body) : undefined
  if (bytes) headers['content-type'] = type
  else if (json) headers['content-type'] = 'application/json'
  const method_ = body !== undefined || bytes ? 'POST' : 'GET'
  const response = await fetch(url, { method: method_, headers, body: bytes ?? json })
  const kind = response.headers.get('content-type') ?? ''
  const answer = kind.includes('json') ? await response.json() : new Uint8Array(await response.arrayBuffer())
  if (!response.ok) throw new Error(`${method}: ${response.status} ${JSON.stringify(answer)}`)
  return answer
}

const rkey = (uri) => uri.split('/').pop()
const post = (text, more = {}) => ({
  $type: 'app.bsky.feed.post',
  text,
  createdAt: new Date().toISOString(),
  ...more,
})
const PIXEL = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==',
  'base64',
)

/** Tells the story; `step` runs one part of it and waits until what it has caused has been seen. */
export async function tell([a, b], step) {
  const newAccount = (pds, name, number) =>
    call(pds, 'com.atproto.server.createAccount', {
      body: { handle: `${name}.pds${number}.test`, email: `${name}@example.com`, password: 'pw' },
    })
  const alice = await step('create alice', () => newAccount(a, 'alice', 0))
  const own = { token: alice.accessJwt }
  const repo = alice.did
  const create = (collection, record, more = {}) =>
    call(a, 'com.atproto.repo.createRecord', { ...own, body: { repo, collection, record, ...more } })
  const put = (collection, key, record) =>
    call(a, 'com.atproto.repo.putRecord', { ...own, body: { repo, collection, rkey: key, record } })
  const apply = (writes, more = {}) =>
    call(a, 'com.atproto.repo.applyWrites', { ...own, body: { repo, writes, ...more } })
  const write = (action, collection, more) => ({
    $type: `com.atproto.repo.applyWrites#${action}`,
    collection,
    ...more,
  })
  const profile = (displayName) => ({ $type: 'app.bsky.actor.profile', displayName })

  // === Records ===
  const first = await step('post', () => create('app.bsky.feed.post', post('hello world')))
  await step('profile created', () => put('app.bsky.actor.profile', 'self', profile('Alice')))
  await step('profile updated', () => put('app.bsky.actor.profile', 'self', profile('Alice 2')))
  await step('profile put again', () => put('app.bsky.actor.profile', 'self', profile('Alice 2')))
  await step('record of an unknown lexicon', () =>
    create(
      'com.example.thing',
      { $type: 'com.example.thing', n: 1, big: 9007199254740991, negative: -5, nested: [null, true, 'ünïcødé'] },
      { rkey: 'k:1', validate: false },
    ),
  )
  const three = await step('3 creates in one commit', () =>
    apply([1, 2, 3].map((n) => write('create', 'app.bsky.feed.post', { value: post(`batch ${n}`) }))),
  )
  await step('create, update and delete in one commit', () =>
    apply([
      write('create', 'app.bsky.feed.post', { value: post('mixed') }),
      write('update', 'app.bsky.feed.post', { rkey: rkey(three.results[0].uri), value: post('edited') }),
      write('delete', 'app.bsky.feed.post', { rkey: rkey(three.results[1].uri) }),
    ]),
  )
  await step('delete', () =>
    call(a, 'com.atproto.repo.deleteRecord', {
      ...own,
      body: { repo, collection: 'app.bsky.feed.post', rkey: rkey(first.uri) },
    }),
  )
  const { uri, cid } = three.results[2]
  const like = () => ({ $type: 'app.bsky.feed.like', subject: { uri, cid }, createdAt: new Date().toISOString() })
  const likes = await step('200 creates in one commit', () =>
    apply(Array.from({ length: 200 }, () => write('create', 'app.bsky.feed.like', { value: like() }))),
  )
  await step('record of 60 KiB', () =>
    create('com.example.thing', { $type: 'com.example.thing', s: 'x'.repeat(60 * 1024) }, { validate: false }),
  )
  await step('record of 140 KiB', () =>
    create('com.example.thing', { $type: 'com.example.thing', s: 'y'.repeat(140 * 1024) }, { validate: false }),
  )
  await step('200 deletes in one commit', () =>
    apply(likes.results.map((made) => write('delete', 'app.bsky.feed.like', { rkey: rkey(made.uri) }))),
  )
  await step('create and delete of one key in one commit', () =>
    apply(
      [
        write('create', 'com.example.thing', { rkey: 'flip', value: { $type: 'com.example.thing' } }),
        write('delete', 'com.example.thing', { rkey: 'flip' }),
      ],
      { validate: false },
    ),
  )
  await step('commit without writes', () => apply([]))
  const picture = await step('blob', () =>
    call(a, 'com.atproto.repo.uploadBlob', { ...own, bytes: PIXEL, type: 'image/png' }),
  )
  await step('post with a picture', () =>
    create(
      'app.bsky.feed.post',
      post('image', { embed: { $type: 'app.bsky.embed.images', images: [{ image: picture.blob, alt: 'dot' }] } }),
    ),
  )

  // === Identity and account ===
  await step('handle', () =>
    call(a, 'com.atproto.identity.updateHandle', { ...own, body: { handle: 'alice-new.pds0.test' } }),
  )
  await step('post after the handle', () => create('app.bsky.feed.post', post('a new name')))
  await step('deactivate', () => call(a, 'com.atproto.server.deactivateAccount', { ...own, body: {} }))
  await step('activate', () => call(a, 'com.atproto.server.activateAccount', { ...own, body: null }))
  await step('post after activation', () => create('app.bsky.feed.post', post('back')))
  const takedown = (applied) =>
    call(a, 'com.atproto.admin.updateSubjectStatus', {
      admin: true,
      body: {
        subject: { $type: 'com.atproto.admin.defs#repoRef', did: repo },
        takedown: { applied, ref: 'takedown-1' },
      },
    })
  await step('takedown', () => takedown(true))
  await step('takedown reversed', () => takedown(false))
  await step('post after the takedown', () => create('app.bsky.feed.post', post('still here')))
  await step('sync', () => sequenceSync(a, repo))
  await step('rotate the signing key', () => rotateSigningKey(a, repo))
  await step('post with the new key', () => create('app.bsky.feed.post', post('signed anew')))

  // === Two hosts ===
  const dora = await step('create dora on the other host', () => newAccount(b, 'dora', 1))
  await step('posts on both hosts', () =>
    Promise.all(
      Array.from({ length: 20 }, async (_, n) => {
        const there = { repo: dora.did, collection: 'app.bsky.feed.post', record: post(`there ${n}`) }
        await create('app.bsky.feed.post', post(`here ${n}`))
        await call(b, 'com.atproto.repo.createRecord', { token: dora.accessJwt, body: there })
      }),
    ),
  )
  const carol = await step('create carol', () => newAccount(a, 'carol', 0))
  const carolPosts = (pds, token, text) =>
    call(pds, 'com.atproto.repo.createRecord', {
      token,
      body: { repo: carol.did, collection: 'app.bsky.feed.post', record: post(text) },
    })
  await step('carol posts', () => carolPosts(a, carol.accessJwt, 'from the old host'))
  const moved = await step('carol moves: an account on the new host', async () => {
    const { did: audience } = await call(b, 'com.atproto.server.describeServer')
    const { token } = await call(a, 'com.atproto.server.getServiceAuth', {
      token: carol.accessJwt,
      query: { aud: audience, lxm: 'com.atproto.server.createAccount' },
    })
    return call(b, 'com.atproto.server.createAccount', {
      token,
      body: { did: carol.did, handle: 'carol.pds1.test', email: 'carol@example.com', password: 'pw' },
    })
  })
  const there = { token: moved.accessJwt }
  await step('carol moves: the repo', async () => {
    const bytes = await call(a, 'com.atproto.sync.getRepo', { query: { did: carol.did } })
    await call(b, 'com.atproto.repo.importRepo', { ...there, bytes, type: 'application/vnd.ipld.car' })
  })
  await step('carol moves: the directory', async () => {
    const recommended = await call(b, 'com.atproto.identity.getRecommendedDidCredentials', there)
    await updateDirectory(a, carol.did, recommended)
  })
  await step('carol moves: active on the new host', () =>
    call(b, 'com.atproto.server.activateAccount', { ...there, body: null }),
  )
  await step('carol moves: not active on the old host', () =>
    call(a, 'com.atproto.server.deactivateAccount', { token: carol.accessJwt, body: {} }),
  )
  await step('carol posts on the new host', () => carolPosts(b, moved.accessJwt, 'from the new host'))

  // === The end of an account ===
  const bob = await step('create bob', () => newAccount(a, 'bob', 0))
  await step('bob posts', () =>
    call(a, 'com.atproto.repo.createRecord', {
      token: bob.accessJwt,
      body: { repo: bob.did, collection: 'app.bsky.feed.post', record: post('not for long') },
    }),
  )
  await step('delete bob', () =>
    call(a, 'com.atproto.admin.deleteAccount', { admin: true, body: { did: bob.did } }),
  )
  return { alice: alice.did, bob: bob.did, carol: carol.did, dora: dora.did }
}
