// Small makers of elements.

export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name === "class") node.className = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name in node && name !== "role" && !name.startsWith("aria")) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

let names = 0;  // one count for all viewers of the page

export function choice(label, options, onpick) {
  const name = "vit-" + ++names;
  const radios = options.map(([value, text, title = ""]) => el("label", { title },
    el("input", { type: "radio", name, value, onchange: () => onpick(value) }), el("span", {}, text)));
  const node = el("fieldset", { class: "vit-choice" }, el("legend", {}, label), el("div", { class: "vit-segments" }, ...radios));
  node.show = (value, allowed = null) => {
    for (const radio of node.querySelectorAll("input")) {
      radio.checked = radio.value === value;
      radio.parentNode.hidden = allowed !== null && !allowed.includes(radio.value);
    }
  };
  return node;
}

export function toggle(text, title, onpick) {
  const box = el("input", { type: "checkbox", onchange: () => onpick(box.checked) });
  const node = el("label", { class: "vit-toggle", title }, box, el("span", {}, text));
  node.show = (value) => { box.checked = value; };
  return node;
}

export function icon(path) {
  const span = el("span", { class: "vit-icon" });
  span.innerHTML = `<svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true"><path d="${path}"/></svg>`;
  return span;
}
export const ICONS = {
  play: "M4.5 2.8v10.4L13 8z",
  pause: "M4 3h3v10H4zM9 3h3v10H9z",
  intervene: "M2.7 1.5h10.6c.7 0 1.2.5 1.2 1.2v10.6c0 .7-.5 1.2-1.2 1.2H2.7c-.7 0-1.2-.5-1.2-1.2V2.7c0-.7.5-1.2 1.2-1.2zM3 3v8.9L11.9 3zm10 1.1L4.1 13H13z",
  link: "M6.6 9.4a.7.7 0 0 1 0-1l3-3a.7.7 0 1 1 1 1l-3 3a.7.7 0 0 1-1 0zM4.5 13.6a3.1 3.1 0 0 1-2.2-5.3L4.2 6.4a.7.7 0 1 1 1 1L3.3 9.3a1.7 1.7 0 0 0 2.4 2.4l1.9-1.9a.7.7 0 1 1 1 1l-1.9 1.9c-.6.6-1.4.9-2.2.9zm6.8-3.8a.7.7 0 0 1-.5-1.2l1.9-1.9a1.7 1.7 0 0 0-2.4-2.4L8.4 6.2a.7.7 0 1 1-1-1l1.9-1.9a3.1 3.1 0 0 1 4.4 4.4l-1.9 1.9a.7.7 0 0 1-.5.2z",
};

const SVG = "http://www.w3.org/2000/svg";
export function svg(tag, attributes, text) {
  const node = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) node.setAttribute(name, value);
  if (text !== undefined) node.textContent = text;
  return node;
}

// Children for other items in place of these: one that has the same key stays, be it pressed or focused meanwhile.
export function renew(parent, items, keyOf, make) {
  const old = new Map([...parent.children].map((child) => [child.dataset.key, child])), held = document.activeElement;
  const within = held?.parentNode === parent;
  const children = items.map((item) => {
    const key = String(keyOf(item)), child = old.get(key) ?? make(item);
    child.dataset.key = key;
    return child;
  });
  for (const child of old.values()) if (!children.includes(child)) child.remove();
  children.forEach((child, place) => parent.children[place] === child || parent.insertBefore(child, parent.children[place] ?? null));
  if (within) (children.includes(held) ? held : children[0])?.focus({ preventScroll: true });
  return children;
}

// A row is pushed along until all of this element of it is seen; the page stays where it is.
export function reach(element) {
  const row = element.parentElement, { left, right } = element.getBoundingClientRect(), edge = row.getBoundingClientRect();
  if (left < edge.left || right > edge.right) row.scrollLeft += (left + right - edge.left - edge.right) / 2;
}

// A variable's colour as a canvas takes it, which does not take all that it may be made of, such as light-dark(...).
export function colourOf(element, variable) {
  element.style.color = `var(${variable})`;
  const { color } = getComputedStyle(element);
  element.style.color = "";
  return color;
}
