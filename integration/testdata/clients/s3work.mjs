// A day's work with S3, by the SDK for JavaScript.
//
// s3work.mjs STYLE BUCKET prints a line for each step: what the client got,
// less what differs from run to run. At its end the bucket is empty again.

import { createHash } from 'node:crypto'
import { createRequire } from 'node:module'
import { Readable } from 'node:stream'

const load = createRequire(process.env.CLIENTS_MODULES + '/package.json')
const s3 = load('@aws-sdk/client-s3')
const { Upload } = load('@aws-sdk/lib-storage')
const { HttpsProxyAgent } = load('https-proxy-agent')

const [style, Bucket] = process.argv.slice(2)
const proxy = process.env.HTTPS_PROXY
const client = new s3.S3Client({
  forcePathStyle: style === 'path',
  maxAttempts: 1,
  requestHandler: proxy ? { httpsAgent: new HttpsProxyAgent(proxy, { keepAlive: true, maxSockets: 20 }) } : { httpsAgent: { keepAlive: true, maxSockets: 20 } },
})

function content(seed, size) {
  const block = createHash('sha256').update(seed).digest()
  return Buffer.concat(Array(Math.floor(size / block.length) + 1).fill(block)).subarray(0, size)
}

const digest = (data) => createHash('sha256').update(data).digest('hex')

function settled(value) {
  if (Array.isArray(value)) return value.map(settled)
  if (value === null || typeof value !== 'object' || value instanceof Date) return value
  const out = {}
  for (const key of Object.keys(value).sort()) {
    if (!['$metadata', 'LastModified', 'UploadId', 'ContinuationToken', 'NextContinuationToken'].includes(key)) out[key] = settled(value[key])
  }
  return out
}

async function step(name, call) {
  let out
  try {
    out = await call()
    if (out?.Body?.transformToByteArray) out = { ...out, Body: digest(await out.Body.transformToByteArray()) }
  } catch (e) {
    out = { error: e.name, message: e.message, status: e.$metadata?.httpStatusCode }
  }
  console.log(JSON.stringify({ step: name, out: settled(out) }))
}

const send = (command, input) => client.send(new s3[command + 'Command']({ Bucket, ...input }))
const put = (Key, Body, more) => send('PutObject', { Key, Body, ...more })
const get = (Key, more) => send('GetObject', { Key, ...more })
const escaped = (key) => encodeURIComponent(key).replaceAll('%2F', '/')

const odd = ['a b+c/\u00fc/%41/..x//y', '~', "'()*", 'k=1&l=2;m', '@:,$!?#[]', '\u{1f511}/\u20ac', '..x/.y', 'plus+and%2Bplus']

await step('put', () => put('plain.txt', 'hello', { ContentType: 'text/plain', Metadata: { who: 'node' } }))
await step('put empty', () => put('empty', ''))
await step('put a stream', () => put('stream', Readable.from([content('stream', 300_000)]), { ContentLength: 300_000 }))
for (const ChecksumAlgorithm of ['CRC32', 'SHA1', 'SHA256']) {
  await step('put ' + ChecksumAlgorithm, () => put('sum-' + ChecksumAlgorithm, content(ChecksumAlgorithm, 100_000), { ChecksumAlgorithm }))
  await step('get ' + ChecksumAlgorithm, () => get('sum-' + ChecksumAlgorithm))
}
for (const key of odd) {
  await step('put ' + key, () => put(key, content(key, 1000)))
  await step('head ' + key, () => send('HeadObject', { Key: key }))
  await step('get ' + key, () => get(key))
  await step('copy ' + key, () => send('CopyObject', { Key: 'copies/' + key, CopySource: Bucket + '/' + escaped(key) }))
}
await step('get', () => get('plain.txt'))
await step('get a range', () => get('stream', { Range: 'bytes=1000-1999' }))
await step('get what is not there', () => get('nothing'))
await step('get if it is another', () => get('plain.txt', { IfMatch: '"0"' }))

async function listing() {
  const all = []
  for await (const page of s3.paginateListObjectsV2({ client, pageSize: 4 }, { Bucket })) {
    for (const o of page.Contents ?? []) all.push([o.Key, o.Size, o.ETag])
  }
  return all
}

await step('list', listing)
await step('list folders', () => send('ListObjectsV2', { Delimiter: '/' }).then((r) => r.CommonPrefixes))
await step('upload in parts', () =>
  new Upload({ client, params: { Bucket, Key: 'big', Body: content('big', 17 << 20) }, partSize: 5 << 20, queueSize: 4 }).done())
await step('download', () => get('big'))
await step('twenty at once', () =>
  Promise.all(Array.from({ length: 20 }, async (_, i) => {
    const data = content(String(i), 200_000)
    await put(`many/${i}`, data)
    return digest(await (await get(`many/${i}`)).Body.transformToByteArray()) === digest(data)
  })))
await step('delete', async () => {
  const keys = (await listing()).map(([Key]) => ({ Key }))
  await send('DeleteObject', keys.pop())
  const gone = await send('DeleteObjects', { Delete: { Objects: keys } })
  return [gone.Deleted.length, (gone.Errors ?? []).length, await listing()]
})
