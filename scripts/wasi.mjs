// node wasi.mjs PROGRAM ARGS...: runs a program for WebAssembly, as make conformance does. It sees its arguments and no file.
import { readFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { WASI } from "node:wasi";

// Node 20 throws away the bytecode of functions that have not been called for a while, also of those which wait for a program
// that computes for seconds: it crashed as the program returned, in 17 of 22 runs on a busy machine.
setFlagsFromString("--no-flush-bytecode");

const args = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args, returnOnExit: true });
const imports = { wasi_snapshot_preview1: wasi.wasiImport };
const { instance } = await WebAssembly.instantiate(readFileSync(args[0]), imports);
process.exitCode = wasi.start(instance);
