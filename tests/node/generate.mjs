// Runs a baked component in Node (V8): transpiles it, and generates what each golden asks for.
//
//   node generate.mjs APP.wasm GOLDENS.json OUTPUT_DIRECTORY
//
// Prints one JSON array: for every golden the ids, the text, and the digest of the logits.

import { readFile } from 'node:fs/promises';
import { join, resolve } from 'node:path';
import { pathToFileURL } from 'node:url';
import { transpile, writeFiles } from '@bytecodealliance/jco-transpile';

const [app, goldens, directory] = process.argv.slice(2).map((path) => resolve(path));

const { files } = await transpile(app, { name: 'app', outDir: directory, noTypescript: true });
await writeFiles(files);
const { generator } = await import(pathToFileURL(join(directory, 'app.js')));

function generate({ prompt, output_ids }) {
  const options = {
    maxTokens: output_ids.length,
    temperature: 0,
    logitBias: [],
    stop: [],
    digestLogits: true,
  };
  const generation = generator.Generation.start({ tag: 'text', val: prompt }, options);
  const result = { output_ids: [], output_text: '' };
  for (let event = generation.next(); event !== undefined; event = generation.next()) {
    if (event.tag === 'token') {
      result.output_ids.push(event.val.id);
      result.output_text += event.val.text;
    } else if (event.tag === 'finished') {
      result.logits_digest = event.val.logitsDigest.toString(16).padStart(16, '0');
    }
  }
  return result;
}

console.log(JSON.stringify(JSON.parse(await readFile(goldens, 'utf8')).map(generate)));
