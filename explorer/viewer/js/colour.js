// Numbers to colours: what the brightest means, how bright a value is, which table it is looked up in.

export const OCTAVES = 4;  // of the scale relative to uniform attention, to either side

export function tableOf(colors, index) {  // 256 colours as 0xAABBGGRR
  return Uint32Array.from({ length: 256 }, (_, i) => {
    const at = (index * 256 + i) * 3;
    return (0xff << 24 | colors[at + 2] << 16 | colors[at + 1] << 8 | colors[at]) >>> 0;
  });
}

// How a cell's values become the numbers 0 ... 255 of a colour table.
export function rangeOf(sheet, i, { scale, curve }, data) {
  const single = (k) => k % sheet.cols < sheet.cols - sheet.fused;
  const topOf = (from, to) => {
    let top = 0;
    for (let k = from; k < to; k++) if (sheet.ready[k] && single(k)) top = Math.max(top, sheet.tops[k]);
    return top;
  };
  if (sheet.unit === "cosine") return { low: 0, high: 1 };
  if (sheet.unit === "share" && scale === "uniform") return { uniform: 1 / data.T };
  const root = curve === "root" && (sheet.unit === "share" || sheet.unit === "value");
  if (sheet.unit === "value") {
    const high = Math.max(sheet.tops[i], -sheet.lows[i]);
    return { low: sheet.lows[i] < 0 ? -high : 0, high, signed: sheet.lows[i] < 0, root };
  }
  const row = Math.floor(i / sheet.cols) * sheet.cols;
  if (scale === "all") return { low: 0, high: topOf(0, sheet.count), root };
  if (scale === "layer" && sheet.fused) return { low: 0, high: topOf(row, row + sheet.cols), root };
  return { low: 0, high: sheet.tops[i], root };
}

export function level(value, range) {  // 0 ... 1
  let t = range.uniform
    ? 0.5 + Math.log2(Math.max(value / range.uniform, 1e-9)) / (2 * OCTAVES)
    : (value - range.low) / (range.high - range.low || 1);
  if (range.root) t = range.signed ? 0.5 + Math.sign(value) * Math.sqrt(Math.abs(t - 0.5) / 2) : Math.sqrt(Math.max(0, t));
  return t < 0 ? 0 : t > 1 ? 1 : t;
}

// Sides that stand together share one scale, and while the layers play that of the next one, too.
export function shareRange(views) {
  for (const name of ["range", "toRange"]) {
    const high = Math.max(...views.map((view) => view[name]?.high ?? 0));
    for (const view of views) if (view[name]?.high !== undefined && view.sheet.unit === "share")
      view[name] = { ...view[name], high, shared: true };
  }
}

export function tableFor(range, state, data) {
  const name = range.signed ? data.signed_colormaps[0] : state.colormap;
  return data.tables[name] ?? Object.values(data.tables)[0];
}

// One cell as colours, one number per patch; of a clip one frame, which begins `from` patches behind the first.
export function colorize(out, sheet, i, range, table, from = 0) {
  const { cellWidth, cellHeight, size, first, colors } = sheet;
  const count = cellWidth * cellHeight;
  if (colors) {
    for (let k = 0, at = i * size + 3 * from; k < count; k++, at += 3)
      out[k] = 0xff000000 | colors[at + 2] << 16 | colors[at + 1] << 8 | colors[at];
    return;
  }
  const values = sheet.values, at = i * size + first + from;
  if (range.uniform || range.signed)
    for (let k = 0; k < count; k++) out[k] = table[Math.round(255 * level(values[at + k], range))];
  else if (range.root) {
    const gain = 255 * 255 / (range.high || 1);
    for (let k = 0; k < count; k++) {
      const step = Math.sqrt(values[at + k] * gain) + 0.5;
      out[k] = table[step > 255 ? 255 : step | 0];
    }
  } else {
    const gain = 255 / (range.high - range.low || 1), low = range.low;
    for (let k = 0; k < count; k++) {
      const step = (values[at + k] - low) * gain + 0.5;
      out[k] = table[step < 0 ? 0 : step > 255 ? 255 : step | 0];
    }
  }
}
