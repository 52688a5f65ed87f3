// Files, HTTP over loopback, worker threads with shared memory, children, timers.
import { createServer, get } from 'node:http'
import { mkdtemp, writeFile, readFile, readdir, rm } from 'node:fs/promises'
import { watch } from 'node:fs'
import { Worker, isMainThread, parentPort, workerData } from 'node:worker_threads'
import { execFile } from 'node:child_process'
import { promisify } from 'node:util'
import { createHash, pbkdf2 } from 'node:crypto'
import { createGzip, createGunzip } from 'node:zlib'
import { Readable } from 'node:stream'

if (!isMainThread) {
  const shared = new Int32Array(workerData)
  for (let i = 0; i < 20000; i++) Atomics.add(shared, 0, 1)
  Atomics.wait(shared, 1, 0)
  parentPort.on('message', text => {
    parentPort.postMessage(createHash('sha1').update(text).digest('hex'))
    parentPort.close()
  })
} else {
  const folder = await mkdtemp('/tmp/node-')
  await Promise.all([...Array(50).keys()].map(n => writeFile(`${folder}/${n}`, 'x'.repeat(n * 100))))
  const sizes = await Promise.all((await readdir(folder)).map(async n => (await readFile(`${folder}/${n}`)).length))
  console.log('files', sizes.reduce((a, b) => a + b))
  const changed = new Promise(done => { const w = watch(folder, (_, name) => { w.close(); done(name) }) })
  await writeFile(`${folder}/new`, '')
  console.log('watched', await changed)
  await rm(folder, { recursive: true })

  const server = createServer((request, response) => {
    let length = 0
    request.on('data', d => { length += d.length })
    request.on('end', () => response.end(JSON.stringify({ url: request.url, length })))
  }).listen(0, '127.0.0.1')
  await new Promise(done => server.on('listening', done))
  const ask = path => new Promise((done, bad) => get({ port: server.address().port, host: '127.0.0.1', path }, r => {
    let text = ''
    r.on('data', d => { text += d })
    r.on('end', () => done(text))
  }).on('error', bad))
  const answers = await Promise.all([...Array(200).keys()].map(n => ask(`/${n}`)))
  console.log('http', answers.length, answers[199])
  const fetched = await fetch(`http://localhost:${server.address().port}/f`, { method: 'POST', body: 'y'.repeat(300000) }).catch(e => e)
  console.log('fetch', fetched.ok ? await fetched.text() : String(fetched.cause))
  server.close()
  server.closeAllConnections()

  const memory = new SharedArrayBuffer(8)
  const workers = [...Array(4)].map(() => new Worker(new URL(import.meta.url), { workerData: memory }))
  const shared = new Int32Array(memory)
  const replies = Promise.all(workers.map((w, n) => new Promise(done => { w.on('message', done); w.postMessage(`w${n}`) })))
  const ended = Promise.all(workers.map(w => new Promise(done => w.on('exit', done))))
  while (Atomics.load(shared, 0) < 80000) await new Promise(done => setTimeout(done, 1))
  Atomics.store(shared, 1, 1)
  Atomics.notify(shared, 1)
  console.log('workers', await replies, await ended, shared[0])

  const hashes = await Promise.all([...Array(8).keys()].map(n => promisify(pbkdf2)('p', `${n}`, 2000, 8, 'sha256')))
  console.log('pool', hashes.map(h => h.toString('hex')).join())
  const pieces = await Readable.from(['a'.repeat(1e6)]).pipe(createGzip()).pipe(createGunzip()).toArray()
  console.log('gzip', Buffer.concat(pieces).length)
  const run = promisify(execFile)
  console.log('child', (await run('sh', ['-c', 'echo out; echo err >&2'])).stderr.trim())
  console.log('code', (await run('sh', ['-c', 'exit 3']).catch(e => e)).code)
  const stop = await run('sleep', ['100'], { timeout: 20 }).catch(e => e)
  console.log('killed', stop.killed, stop.signal)
  process.on('SIGUSR2', () => { console.log('signal'); process.exit(6) })
  process.kill(process.pid, 'SIGUSR2')
  setTimeout(() => {}, 100000)
}
