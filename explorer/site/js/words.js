/* Words as the classes of a tower of pictures and texts (vit/words.py): which of those that came along are asked for,
   what a picture's vector says to each, and where each of them is.

   about, as the exporter made it: classNames are the K words, vectors (K + 1, E) theirs, the control's behind them;
   classes is E, for the model's answer is the picture's vector. words: {scale, bias, control, alike}. */

const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
const lengthOf = (vector) => Math.max(Math.sqrt(dot(vector, vector)), 1e-12);
const vectorOf = ({ vectors, width }, k) => vectors.subarray(k * width, (k + 1) * width);

/* The tower as a model whose classes are the words `chosen`, by their places in the table. */
export function asking(about, chosen) {
  const scores = about.words.bias !== null ? "sigmoid" : chosen.length > 1 ? "softmax" : "none";
  const classNames = chosen.map((k) => about.classNames[k]);
  return { ...about, chosen, classNames, classes: chosen.length, width: about.classes, scores };
}

/* What the graph returned, with the logits of the chosen words in the place of the picture's vector.
   length: of the vector of the picture as it is, which is held where the picture is changed. */
export function spoken({ logits: vector, ...rest }, about, length = lengthOf(vector)) {
  const { scale, bias } = about.words;
  const logits = Float32Array.from(about.chosen, (k) => scale * dot(vector, vectorOf(about, k)) / length + (bias ?? 0));
  const found = { ...rest, logits, length };
  if (rest.class_bias) found.class_bias = Float32Array.of(bias ?? 0);
  return found;
}

/* (E,): the direction whose product with a picture's vector is the logit of a chosen word, but for the bias. */
export function directionOf(about, target, length) {
  return vectorOf(about, about.chosen[target]).map((value) => about.words.scale * value / length);
}

/* Where the chosen words are: {names, maps: [(P,), ...], control (P,), alike: [correlation of each with the control's]}.
   patches (P, E), each of length 1. */
export function whereOf(patches, about) {
  const { width } = about, P = patches.length / width;
  const cosines = (k) => {
    const vector = vectorOf(about, k);
    return Float32Array.from({ length: P }, (_, p) => dot(vector, patches.subarray(p * width, (p + 1) * width)));
  };
  const maps = about.chosen.map(cosines), control = cosines(about.vectors.length / width - 1);
  return { names: about.classNames, maps, control, alike: maps.map((map) => correlation(map, control)) };
}

function correlation(a, b) {
  const centred = (values) => {
    const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
    return values.map((value) => value - mean);
  };
  const [x, y] = [centred(a), centred(b)];
  return dot(x, y) / Math.max(Math.sqrt(dot(x, x) * dot(y, y)), 1e-8);
}
