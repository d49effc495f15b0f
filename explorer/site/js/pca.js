/* The first three principal components of patch tokens as colours, as explorer/payload.py's pca_colors has them. */

const WANTED = 3, WIDTH = 8, ROUNDS = 400, ENOUGH = 1e-10;  // WIDTH directions are iterated so that three converge

/* (depths, P, 3) bytes. tokens (depths, T, D); joint: one basis for all depths, else one for each. */
export function pcaColours(tokens, { depths, T, D, prefix, joint }) {
  const P = T - prefix, x = new Float64Array(depths * P * D);
  for (let l = 0; l < depths; l++) {
    centre(x.subarray(l * P * D, (l + 1) * P * D), tokens.subarray((l * T + prefix) * D, (l + 1) * T * D), P, D);
  }
  const colours = new Uint8Array(depths * P * 3);
  for (const [from, to] of joint ? [[0, depths]] : Array.from({ length: depths }, (_, l) => [l, l + 1])) {
    const part = x.subarray(from * P * D, to * P * D);
    const scores = project(part, D, directions(part, D));
    colours.set(stretched(scores), from * P * 3);
  }
  return colours;
}

// Each depth has mean zero and mean square one: late layers are an order of magnitude longer.
function centre(out, patches, P, D) {
  for (let d = 0; d < D; d++) {
    let mean = 0;
    for (let p = 0; p < P; p++) mean += patches[p * D + d] / P;
    for (let p = 0; p < P; p++) out[p * D + d] = patches[p * D + d] - mean;
  }
  let square = 0;
  for (const value of out) square += value * value;
  const scale = Math.max(Math.sqrt(square / out.length), 1e-12);
  for (let i = 0; i < out.length; i++) out[i] /= scale;
}

// The three directions of largest variance, (3, D): subspace iteration on the (D, D) matrix x'x.
function directions(x, D) {
  const matrix = new Float64Array(D * D), count = x.length / D;
  for (let n = 0; n < count; n++) {
    for (let i = 0; i < D; i++) {
      const value = x[n * D + i];
      for (let j = i; j < D; j++) matrix[i * D + j] += value * x[n * D + j];
    }
  }
  for (let i = 0; i < D; i++) for (let j = 0; j < i; j++) matrix[i * D + j] = matrix[j * D + i];
  const width = Math.min(WIDTH, D);
  let basis = Array.from({ length: width }, (_, k) => Float64Array.from({ length: D }, (_, i) => Math.sin((k + 1) * (i + 1))));
  orthonormalise(basis);
  let before = null;
  for (let round = 0; round < ROUNDS; round++) {
    const turned = basis.map((v) => times(matrix, v, D));
    const variances = ritz(basis, turned);  // turns both into the best directions within the subspace
    const now = variances.slice(0, WANTED);
    basis = turned;
    orthonormalise(basis);
    if (before && now.every((v, i) => Math.abs(v - before[i]) <= ENOUGH * now[0]) && round > 20) break;
    before = now;
  }
  return basis.slice(0, WANTED).map(positive);
}

function times(matrix, v, D) {
  const out = new Float64Array(D);
  for (let i = 0; i < D; i++) {
    let sum = 0;
    for (let j = 0, at = i * D; j < D; j++) sum += matrix[at + j] * v[j];
    out[i] = sum;
  }
  return out;
}

const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);

function orthonormalise(basis) {  // Gram and Schmidt, twice, for what rounding leaves
  basis.forEach((v, k) => {
    for (let again = 0; again < 2; again++) {
      for (const u of basis.slice(0, k)) {
        const share = dot(u, v);
        for (let i = 0; i < v.length; i++) v[i] -= share * u[i];
      }
      const length = Math.sqrt(dot(v, v));
      for (let i = 0; i < v.length; i++) v[i] = length > 1e-300 ? v[i] / length : 0;
    }
  });
}

// Rayleigh and Ritz: diagonalise basis' matrix basis by Jacobi rotations, which are applied to `turned`, too.
function ritz(basis, turned) {
  const n = basis.length, small = basis.map((u) => turned.map((v) => dot(u, v)));
  const vectors = small.map((_, i) => small.map((_, j) => Number(i === j)));
  for (let sweep = 0; sweep < 12; sweep++) {
    for (let p = 0; p < n; p++) for (let q = p + 1; q < n; q++) rotate(small, vectors, p, q);
  }
  const order = small.map((_, i) => i).sort((a, b) => small[b][b] - small[a][a]);
  const mixed = order.map((k) => {
    const out = new Float64Array(turned[0].length);
    turned.forEach((v, j) => { for (let i = 0; i < out.length; i++) out[i] += vectors[j][k] * v[i]; });
    return out;
  });
  mixed.forEach((v, k) => { turned[k] = v; });
  return order.map((k) => small[k][k]);
}

function rotate(a, vectors, p, q) {
  if (a[p][q] === 0) return;
  const theta = (a[q][q] - a[p][p]) / (2 * a[p][q]);
  const t = Math.sign(theta || 1) / (Math.abs(theta) + Math.sqrt(theta * theta + 1));
  const c = 1 / Math.sqrt(t * t + 1), s = t * c;
  for (let k = 0; k < a.length; k++) [a[k][p], a[k][q]] = [c * a[k][p] - s * a[k][q], s * a[k][p] + c * a[k][q]];
  for (let k = 0; k < a.length; k++) [a[p][k], a[q][k]] = [c * a[p][k] - s * a[q][k], s * a[p][k] + c * a[q][k]];
  for (const row of vectors) [row[p], row[q]] = [c * row[p] - s * row[q], s * row[p] + c * row[q]];
}

function positive(v) {  // the largest entry is positive, so that signs never flip
  const largest = v.reduce((best, x) => (Math.abs(x) > Math.abs(best) ? x : best), 0);
  return largest < 0 ? v.map((x) => -x) : v;
}

function project(x, D, basis) {  // (N, 3)
  const scores = new Float64Array(x.length / D * 3);
  for (let n = 0; n < x.length / D; n++) {
    basis.forEach((v, c) => {
      let sum = 0;
      for (let i = 0; i < D; i++) sum += x[n * D + i] * v[i];
      scores[n * 3 + c] = sum;
    });
  }
  return scores;
}

// Each component is stretched so that 1 % of the patches are at either end.
function stretched(scores) {
  const count = scores.length / 3, colours = new Uint8Array(scores.length);
  for (let c = 0; c < 3; c++) {
    const sorted = Float64Array.from({ length: count }, (_, n) => scores[n * 3 + c]).sort();
    const low = quantile(sorted, 0.01), high = quantile(sorted, 0.99);
    for (let n = 0; n < count; n++) {
      const share = (scores[n * 3 + c] - low) / Math.max(high - low, 1e-12);
      colours[n * 3 + c] = Math.round(255 * Math.min(1, Math.max(0, share)));
    }
  }
  return colours;
}

function quantile(sorted, share) {  // linear between neighbours, as numpy has it
  const at = share * (sorted.length - 1), low = Math.floor(at);
  return sorted[low] + (at - low) * (sorted[Math.min(low + 1, sorted.length - 1)] - sorted[low]);
}
