// Messages as bytes, and what they unpack to: {meta, arrays}. The container is that of explorer/payload.py.

const MAGIC = 0x56695458, VERSION = 1;
const ARRAYS = { uint8: Uint8Array, int32: Int32Array, float32: Float32Array };

export async function inflate(buffer) {
  const bytes = new Uint8Array(buffer);
  if (bytes[0] !== 0x1f || bytes[1] !== 0x8b) return buffer;  // the transport has already unpacked it
  const stream = new Blob([buffer]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).arrayBuffer();
}

// An ArrayBuffer, or a message that is unpacked already: an engine in the browser has its arrays at hand.
export async function unpack(message) {
  if (message.arrays) return message;
  const raw = await inflate(message);
  const view = new DataView(raw);
  if (raw.byteLength < 16 || view.getUint32(0) !== MAGIC) throw new Error("This is no message for the viewer.");
  if (view.getUint32(4, true) !== VERSION) throw new Error("This message needs a newer viewer.");
  const start = 16 + view.getUint32(8, true);
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(raw, 16, start - 16)));
  const arrays = {};
  for (const [name, { dtype, shape, offset }] of Object.entries(header.sections)) {
    const count = shape.reduce((a, b) => a * b, 1);
    arrays[name] = new ARRAYS[dtype](raw, start + offset, count);
    arrays[name].shape = shape;
  }
  return { meta: header.meta, arrays };
}

export function fromBase64(text) {
  const raw = atob(text), array = new Uint8Array(raw.length);
  for (let k = 0; k < raw.length; k++) array[k] = raw.charCodeAt(k);
  return array.buffer;
}
