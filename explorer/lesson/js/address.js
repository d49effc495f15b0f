// The step and the choice in the address: #how=7&square=120&at=3.1 opens the seventh step on square 120, layer 3, head 1.

export function readLesson(hash) {
  const params = new URLSearchParams(hash.replace(/^#/, "")), found = {};
  const number = (text) => (/^\d+$/.test(text ?? "") ? +text : undefined);
  const how = number(params.get("how")), patch = number(params.get("square"));
  const [layer, head] = (params.get("at") ?? "").split(".").map(number);
  if (how >= 1) found.how = how - 1;
  for (const [name, value] of Object.entries({ patch, layer, head })) if (value !== undefined) found[name] = value;
  return found;
}

export function lessonHash(hash, { how, patch, layer, head }) {  // keys of others stay
  const params = new URLSearchParams(hash.replace(/^#/, ""));
  params.set("how", how + 1);
  params.set("square", patch);
  params.set("at", `${layer}.${head}`);
  return "#" + params;
}
