// What people and operators do on two PDSs, step by step: every kind of event that a real host sends.
import { PIXEL, call, move, newAccount, post, rkey, takedown, writePost } from './calls.mjs'
import { rotateSigningKey, sequenceSync } from './servers.mjs'

/** Tells the story; `step` runs one part of it and waits until what it has caused has been seen. */
export async function tell([a, b], step) {
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
  await step('takedown', () => takedown(a, repo, true))
  await step('takedown reversed', () => takedown(a, repo, false))
  await step('post after the takedown', () => create('app.bsky.feed.post', post('still here')))
  await step('sync', () => sequenceSync(a, repo))
  await step('rotate the signing key', () => rotateSigningKey(a, repo))
  await step('post with the new key', () => create('app.bsky.feed.post', post('signed anew')))

  // === Two hosts ===
  const dora = await step('create dora on the other host', () => newAccount(b, 'dora', 1))
  await step('posts on both hosts', () =>
    Promise.all(
      Array.from({ length: 20 }, async (_, n) => {
        await create('app.bsky.feed.post', post(`here ${n}`))
        await writePost(b, dora, `there ${n}`)
      }),
    ),
  )
  const carol = await step('create carol', () => newAccount(a, 'carol', 0))
  await step('carol posts', () => writePost(a, carol, 'from the old host'))
  const moved = await move([a, b], carol, 'carol', step)
  await step('carol posts on the new host', () => writePost(b, moved, 'from the new host'))

  // === The end of an account ===
  const bob = await step('create bob', () => newAccount(a, 'bob', 0))
  await step('bob posts', () => writePost(a, bob, 'not for long'))
  await step('delete bob', () =>
    call(a, 'com.atproto.admin.deleteAccount', { admin: true, body: { did: bob.did } }),
  )
  return { alice: alice.did, bob: bob.did, carol: carol.did, dora: dora.did }
}
