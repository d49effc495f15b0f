/* Clips: {frames: [a picture {data (RGBA), width, height}, ...], times: [seconds, ...]}. What is decided of them without
   decoding anything, as vit/clips.py and vit/clipdecoder.py decide it. */

const text = (bytes, from, to) => String.fromCharCode(...bytes.subarray(from, to));
const STILL = ["avif", "heic", "heix", "heim", "heis", "avci", "mif1", "mif2", "crx "];  // pictures that begin as a video does

/* What a file begins as: "video", the type of an animated picture, or "" for neither. head: its first bytes. */
export function clipKind(head) {
  if (text(head, 0, 4) === "GIF8") return "image/gif";
  if (text(head, 0, 4) === "RIFF" && text(head, 8, 16) === "WEBPVP8X" && head[20] & 2) return "image/webp";
  if (text(head, 0, 8) === "\x89PNG\r\n\x1a\n" && text(head, 0, head.length).includes("acTL")) return "image/png";
  if (text(head, 4, 12) === "ftypavis") return "image/avif";
  if (text(head, 4, 8) === "ftyp" && !STILL.includes(text(head, 8, 12))) return "video";
  return text(head, 0, 4) === "\x1a\x45\xdf\xa3" || text(head, 8, 12) === "AVI " ? "video" : "";
}

/* Does a GIF hold one picture only? bytes: all of it; what is cut off counts for what has come. */
export function isStill(bytes) {
  const table = (flags) => (flags & 128 ? 3 * 2 ** ((flags & 7) + 1) : 0);
  let count = 0, at = 13 + table(bytes[10]);
  while (count < 2 && (bytes[at] === 0x21 || bytes[at] === 0x2c)) {
    const isImage = bytes[at] === 0x2c;
    count += isImage;
    at += isImage ? 11 + table(bytes[at + 9]) : 2;
    while (bytes[at]) at += bytes[at] + 1;  // blocks, the last one empty
    at += 1;
  }
  return count < 2;
}

/* The middle of each of so many equal parts of a whole. */
const middles = (parts, whole) => Array.from({ length: parts }, (_, i) => (i + 0.5) * whole / parts);

/* Which of so many frames are kept, at most `most`. */
export const chosen = (count, most) => middles(Math.min(count, most), count).map(Math.floor);

/* When a video is looked at: as `chosen` has its frames, whose number no browser tells. */
export const moments = (seconds, most) => middles(most, seconds);

/* So many frames of a clip, evenly; of one that has fewer, some stand for more than one. A picture is a clip that stands
   still. */
export function sampled(picture, count) {
  const { frames, times } = picture.frames ? picture : { frames: [picture] };
  const at = middles(count, frames.length).map(Math.floor);
  return { frames: at.map((i) => frames[i]), times: times && at.map((i) => times[i]) };
}

/* The sentence of `rules` for what would take too long, or "". rules: `clips` of site.json. */
export function tooMuch({ width = 0, height = 0, count = 0, seconds = 0 }, { limits, words }) {
  if (seconds > limits.seconds || count > limits.frames) return words.long;
  return Math.max(width, height) > limits.side ? words.large : "";
}

/* The frames of a clip on one sheet, row by row, as explorer/site/pictures.py lays them. */
export function fromSheet({ data, width, height }, { across, times }) {
  const w = width / across, h = height / Math.ceil(times.length / across);
  const frames = times.map((_, i) => {
    const frame = new Uint8ClampedArray(4 * w * h), left = i % across * w, top = Math.floor(i / across) * h;
    for (let y = 0; y < h; y++) frame.set(data.subarray(4 * ((top + y) * width + left), 4 * ((top + y) * width + left + w)), 4 * y * w);
    return { data: frame, width: w, height: h };
  });
  return { frames, times };
}
