// How squares lie in a drawing: a picture's in one frame, a clip's times in rows of frames, each under its number.

const NONE = { t: 1, across: 1, gap: 0, head: 0 };

// lesson: {grid, size}; side: of the whole drawing, in its own units; head: the height of the frames' numbers.
// -> {t, h, w, cw, ch, width, height, frame(time) and square(patch): [x, y] of its corner, at(x, y): the patch or -1}
export function sheetOf({ grid, size: [height, width] }, side, { head = 0 } = {}) {
  const [h, w] = grid.slice(-2), t = grid.length > 2 ? grid[0] : 1;
  const { across, gap, head: top } = t > 1 ? { across: Math.ceil(Math.sqrt(t * height / width)), gap: side / 40, head } : NONE;
  const down = Math.ceil(t / across);
  const scale = Math.min((side - (across - 1) * gap) / across / width, (side - (down - 1) * gap - down * top) / down / height);
  const wide = width * scale, tall = height * scale, cw = wide / w, ch = tall / h;
  const frame = (time) => [time % across * (wide + gap), Math.floor(time / across) * (tall + gap + top) + top];
  return {
    t, h, w, cw, ch, frame, width: across * (wide + gap) - gap, height: down * (tall + gap + top) - gap,
    square(patch) {
      const [x, y] = frame(Math.floor(patch / (h * w))), place = patch % (h * w);
      return [x + place % w * cw, y + Math.floor(place / w) * ch];
    },
    at(x, y) {
      for (let time = 0; time < t; time++) {
        const [left, above] = frame(time), column = Math.floor((x - left) / cw), row = Math.floor((y - above) / ch);
        if (column >= 0 && column < w && row >= 0 && row < h) return (time * h + row) * w + column;
      }
      return -1;
    },
  };
}

// Where in the picture of all frames one of them is: the first four numbers of drawImage.
export function partOf(photo, frames, frame) {
  const wide = photo.width / frames;
  return [frame * wide, 0, wide, photo.height];
}

// Where a square of the frame is in the picture of all frames.
export function squareOf(photo, { frames, grid }, frame, place) {
  const [h, w] = grid.slice(-2), [left, , wide, tall] = partOf(photo, frames, frame);
  return [left + place % w * wide / w, Math.floor(place / w) * tall / h, wide / w, tall / h];
}
