// ONNX Runtime as a side of the benchmark (what it is asked: bench/side.py): node ort_side.js DIR MODULE THREADS
// DIR holds what bench/export.py wrote, MODULE is the folder of onnxruntime-node.
'use strict';
const fs = require('fs');
const path = require('path');
const readline = require('readline');

const [directory, moduleFolder, threads] = process.argv.slice(2);
const ort = require(path.resolve(moduleFolder));

function readFloats(name, shape) {
  const bytes = fs.readFileSync(path.join(directory, name));
  const count = shape.reduce((a, b) => a * b);
  return new ort.Tensor('float32', new Float32Array(bytes.buffer, bytes.byteOffset, count), shape);
}

function writeFloats(file, data) {
  fs.writeFileSync(file, Buffer.from(data.buffer, data.byteOffset, data.byteLength));
}

const sessions = {};

// The graph's session; made when it is first asked for.
async function session(graph) {
  if (!sessions[graph]) {
    sessions[graph] = await ort.InferenceSession.create(
        path.join(directory, graph + '.onnx'),
        {intraOpNumThreads: Number(threads), interOpNumThreads: 1, graphOptimizationLevel: 'all'});
  }
  return sessions[graph];
}

// Runs a graph once → [seconds, outputs]
async function run(graph, inputs) {
  const s = await session(graph);
  const start = process.hrtime.bigint();
  const outputs = await s.run(inputs);
  return [Number(process.hrtime.bigint() - start) / 1e9, outputs];
}

const window = readFloats('window.f32', [1, 1, 32, 256, 256]);
const box = readFloats('box.f32', [1, 6]);
let embedding, masks, tokens;

const actions = {
  async load() {
    await session('encoder');
    await session('decoder');
    return 0;
  },
  async encoder() {
    const [seconds, outputs] = await run('encoder', {window});
    embedding = outputs.embedding;
    return seconds;
  },
  async decoder() {
    const [seconds, outputs] = await run('decoder', {embedding, box});
    masks = outputs.masks;
    return seconds;
  },
  async calls(count) {
    const times = [];
    for (let i = 0; i < Number(count); i++) times.push(await actions.encoder() + await actions.decoder());
    return [times.reduce((a, b) => a + b), ...times].join(' ');
  },
  async blocks(count) {
    if (!tokens || tokens.dims[1] !== Number(count)) tokens = readFloats('tokens.f32', [1, Number(count), 768]);
    return (await run('blocks', {tokens}))[0];
  },
  async save(folder) {
    writeFloats(path.join(folder, 'embedding.f32'), embedding.data);
    writeFloats(path.join(folder, 'masks.f32'), masks.data);
    return 0;
  },
};

async function main() {
  console.log('ready');
  for await (const line of readline.createInterface({input: process.stdin})) {
    const [action, ...rest] = line.split(' ');
    console.log(String(await actions[action](...rest)));
  }
}

main();
