// What tests/test_js.py writes before it calls node: messages as bytes, and the numbers that they were made of.
import { readFileSync } from "node:fs";

const folder = process.env.VIT_FIXTURES;

export const bytes = (name) => {
  const found = readFileSync(`${folder}/${name}.bin`);
  return found.buffer.slice(found.byteOffset, found.byteOffset + found.byteLength);
};
export const truth = JSON.parse(readFileSync(`${folder}/truth.json`, "utf8"));
export const schema = JSON.parse(readFileSync(new URL("../../explorer/schema.json", import.meta.url), "utf8"));

export const close = (a, b, atol) => Math.abs(a - b) <= atol;
