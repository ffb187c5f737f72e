// Speed of llama.cpp compiled to WebAssembly (npm @wllama/wllama), under Node, on one thread.
//
// Usage: node bench/wllama.mjs NODE_MODULES/@wllama/wllama MODEL.gguf PREFILL DECODE
// Prints {"prefill": tokens/s, "decode": tokens/s} as JSON, after a round that is not measured.
//
// The library is written for browsers. Here it gets what it needs of one: a Worker that starts from the
// text of a blob, and a base address for paths.
import fs from 'node:fs';
import path from 'node:path';
import { pathToFileURL } from 'node:url';
import worker_threads from 'node:worker_threads';

const [library, model, prefill, decode] = process.argv.slice(2);
if (!decode) {
  console.error('usage: node wllama.mjs LIBRARY MODEL.gguf PREFILL DECODE');
  process.exit(2);
}

const blobs = new Map();
URL.createObjectURL = (blob) => {
  const url = `blob:${blobs.size}`;
  blobs.set(url, blob);
  return url;
};

// What a browser's worker has and a thread of Node lacks.
const PRELUDE = `
  const port = require('node:worker_threads').parentPort;
  globalThis.self = globalThis;
  globalThis.postMessage = (data, options) => port.postMessage(data, options?.transfer ?? options);
  port.on('message', (data) => onmessage({ data }));
`;

globalThis.Worker = class {
  constructor(url) {
    this.ready = blobs
      .get(url)
      .text()
      .then((text) => {
        const worker = new worker_threads.Worker(`${PRELUDE}\n${text}`, { eval: true });
        worker.on('message', (data) => this.onmessage?.({ data }));
        worker.on('error', (error) => this.onerror?.(error));
        return worker;
      });
  }
  postMessage(data, options) {
    this.ready.then((worker) => worker.postMessage(data, options?.transfer));
  }
  terminate() {
    this.ready.then((worker) => worker.terminate());
  }
};
globalThis.document = { baseURI: pathToFileURL('/').href };
globalThis.navigator ??= { hardwareConcurrency: 1, userAgent: 'node' };

const { Wllama } = await import(pathToFileURL(path.join(library, 'esm/index.js')));
const quiet = { debug() {}, log() {}, warn() {}, error: console.error };
const wasm = path.resolve(library, 'esm/single-thread/wllama.wasm');
const wllama = new Wllama({ 'single-thread/wllama.wasm': wasm }, { logger: quiet });
const context = Number(prefill) + Number(decode) + 1;
const settings = { n_threads: 1, n_ctx: context, n_batch: Number(prefill) };
await wllama.loadModel([await fs.openAsBlob(model)], settings);

async function round(counted) {
  await wllama.kvClear();
  const prompt = Array.from({ length: Number(prefill) }, (_, i) => (i * 97) % 1000);
  const begin = performance.now();
  await wllama.decode(prompt, {});
  const first = performance.now();
  const steps = counted ? Number(decode) : 1;
  for (let i = 0; i < steps; i++) {
    await wllama.decode([(i * 89) % 1000], {});
  }
  const end = performance.now();
  return {
    prefill: (Number(prefill) * 1000) / (first - begin),
    decode: (Number(decode) * 1000) / (end - first),
  };
}

await round(false);
console.log(JSON.stringify(await round(true)));
await wllama.exit();
process.exit(0);
