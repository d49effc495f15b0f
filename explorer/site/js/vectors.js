/* Numbers of the lesson: as they are told, and what is taken from a few of them. */

const DIGITS = 6;  // significant ones

export const number = (value) => Number(Number(value).toPrecision(DIGITS));
export const numbers = (values) => Array.from(values, number);
export const shares = (values) => values.reduce((sum, value) => sum + value, 0);

/* The places of the largest values, largest first; of equal ones the first. */
export function strongest(values, count) {
  return Array.from(values.keys()).sort((a, b) => values[b] - values[a] || a - b).slice(0, count);
}

export function cosine(a, b) {
  let product = 0, ofA = 0, ofB = 0;
  for (let i = 0; i < a.length; i++) {
    product += a[i] * b[i];
    ofA += a[i] * a[i];
    ofB += b[i] * b[i];
  }
  return product / Math.max(Math.sqrt(ofA * ofB), 1e-8);
}

/* To the nearest whole number, halves to the even one: as Python, NumPy and torch round. Next to 1.5 · 2^52 a
   double has no fraction, so that adding it rounds (six times as fast as Math.floor and a comparison). */
const WHOLE = 1.5 * 2 ** 52;
export const halfEven = (x) => (x + WHOLE) - WHOLE;
