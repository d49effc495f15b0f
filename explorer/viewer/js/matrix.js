// The token x token matrix of the chosen head.

import { directional } from "./state.js";

export function paintMatrix(viewer, data, now) {
  if (!viewer.more) return;
  const { state, parts, size, theme, matrixImage } = viewer, canvas = parts.matrix;
  const layer = data.layers[Math.max(0, now.layer)], kind = state.mode === "method" ? "attention" : state.mode;
  const key = [kind, data.name, now.layer, now.head, now.fuse, data.loaded, state.colormap, viewer.generation].join();
  const context = canvas.getContext("2d");
  if (size.key !== key || matrixImage.of !== data) {
    size.key = key;
    const pixels = new OffscreenCanvas(data.T, data.Q);
    if (layer) pixels.getContext("2d").putImageData(matrixPixels(layer, kind, now, data, data.tables[state.colormap]), 0, 0);
    Object.assign(matrixImage, { of: data, width: canvas.width, height: canvas.height });
    const scaled = matrixImage.getContext("2d");
    scaled.imageSmoothingEnabled = data.T > canvas.width;
    scaled.drawImage(pixels, 0, 0, canvas.width, canvas.height);
  }
  context.clearRect(0, 0, canvas.width, canvas.height);
  context.drawImage(matrixImage, 0, 0);
  const line = Math.max(size.dpr, canvas.height / data.Q);
  context.fillStyle = theme.accent;
  const step = Math.max(line, 1.5 * size.dpr);
  const y = data.row_of[now.query] * canvas.height / data.Q, x = now.query * canvas.width / data.T;
  if (!directional(viewer) || state.direction !== "column") context.fillRect(0, y, canvas.width, step);
  if (directional(viewer) && state.direction !== "row") context.fillRect(x, 0, step, canvas.height);
}

function matrixPixels(layer, kind, now, { T, Q, H, pre }, table) {
  const image = new ImageData(T, Q), pixels = new Uint32Array(image.data.buffer);
  if (kind === "embeddings") {
    const rows = now.layer < 0 ? layer.similarity_embed : layer.similarity;
    for (let k = 0; rows && k < T * Q; k++) pixels[k] = table[Math.max(0, Math.round((rows[k] - 127) * 255 / 127))];
    return image;
  }
  const name = kind === "rollout" ? "rollout" : "attn", steps = layer[name], maxima = layer[name + "_max"];
  if (!steps) return image;
  const first = kind === "rollout" ? 0 : now.fuse === "one" ? now.head : 0;
  const last = kind === "rollout" || now.fuse === "one" ? first : H - 1;
  const sums = new Float32Array(T * Q);
  for (let head = first; head <= last; head++) for (let row = 0; row < Q; row++) {
    const r = head * Q + row, toPrefix = maxima[2 * r] / 65025, toPatch = maxima[2 * r + 1] / 65025;
    for (let k = 0, at = row * T, from = r * T; k < T; k++, at++, from++) {
      const value = (k < pre ? toPrefix : toPatch) * steps[from] * steps[from];
      if (now.fuse === "max") { if (value > sums[at]) sums[at] = value; } else sums[at] += value;
    }
  }
  let top = 0;
  for (let k = 0; k < T * Q; k++) if (sums[k] > top) top = sums[k];
  for (let k = 0; k < T * Q; k++) pixels[k] = table[Math.round(255 * Math.sqrt(sums[k] / (top || 1)))];
  return image;
}
