// node wasi.mjs PROGRAM ARGS...: runs a program for WebAssembly, as make conformance does. It sees its arguments and no file.
import { readFileSync } from "node:fs";
import { WASI } from "node:wasi";

const args = process.argv.slice(2);
const wasi = new WASI({ version: "preview1", args, returnOnExit: true });
const imports = { wasi_snapshot_preview1: wasi.wasiImport };
const { instance } = await WebAssembly.instantiate(readFileSync(args[0]), imports);
process.exitCode = wasi.start(instance);
