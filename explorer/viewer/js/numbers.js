// Numbers as people read them: a true minus, and none on zero. What programs read keeps the hyphen.

export const typeset = (text) => (Number(text) === 0 ? text.replace("-", "") : text.replaceAll("-", "−"));
export const number = (value, digits = 2) => typeset(Number(value).toFixed(digits));
