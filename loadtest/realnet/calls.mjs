// What people and operators do on PDSs.
import { ADMIN_PASSWORD, updateDirectory } from './servers.mjs'

export async function call(pds, method, { body, query, token, admin, bytes, type } = {}) {
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

export const rkey = (uri) => uri.split('/').pop()
export const post = (text, more = {}) => ({
  $type: 'app.bsky.feed.post',
  text,
  createdAt: new Date().toISOString(),
  ...more,
})
export const PIXEL = Buffer.from(
  'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==',
  'base64',
)


export const newAccount = (pds, name, number) =>
  call(pds, 'com.atproto.server.createAccount', {
    body: { handle: `${name}.pds${number}.test`, email: `${name}@example.com`, password: 'pw' },
  })

/** The account writes a post. */
export const writePost = (pds, account, text) =>
  call(pds, 'com.atproto.repo.createRecord', {
    token: account.accessJwt,
    body: { repo: account.did, collection: 'app.bsky.feed.post', record: post(text) },
  })

/** The PDS's operator takes an account down, or takes that back. */
export const takedown = (pds, did, applied) =>
  call(pds, 'com.atproto.admin.updateSubjectStatus', {
    admin: true,
    body: {
      subject: { $type: 'com.atproto.admin.defs#repoRef', did },
      takedown: { applied, ref: 'takedown-1' },
    },
  })

/** An account moves from one PDS to another, step by step; gives the account on the new one. */
export async function move([a, b], account, name, step) {
  const moved = await step(`${name} moves: an account on the new host`, async () => {
    const { did: audience } = await call(b, 'com.atproto.server.describeServer')
    const { token } = await call(a, 'com.atproto.server.getServiceAuth', {
      token: account.accessJwt,
      query: { aud: audience, lxm: 'com.atproto.server.createAccount' },
    })
    return call(b, 'com.atproto.server.createAccount', {
      token,
      body: { did: account.did, handle: `${name}.pds1.test`, email: `${name}@example.com`, password: 'pw' },
    })
  })
  const there = { token: moved.accessJwt }
  await step(`${name} moves: the repo`, async () => {
    const bytes = await call(a, 'com.atproto.sync.getRepo', { query: { did: account.did } })
    await call(b, 'com.atproto.repo.importRepo', { ...there, bytes, type: 'application/vnd.ipld.car' })
  })
  await step(`${name} moves: the directory`, async () => {
    const recommended = await call(b, 'com.atproto.identity.getRecommendedDidCredentials', there)
    await updateDirectory(a, account.did, recommended)
  })
  await step(`${name} moves: active on the new host`, () =>
    call(b, 'com.atproto.server.activateAccount', { ...there, body: null }),
  )
  // The one thing that the rules forbid: the old host's word on an account that has moved away.
  await step(
    `${name} moves: not active on the old host`,
    () => call(a, 'com.atproto.server.deactivateAccount', { token: account.accessJwt, body: {} }),
    { refused: account.did },
  )
  return moved
}
