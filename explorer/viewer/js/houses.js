// Where a viewer lives: in a Gradio page, or in a page that holds its own bytes.

import { fromBase64 } from "./bytes.js";
import { mount } from "./mount.js";
import { addresses, download, inPage } from "./sources.js";
import { START } from "./state.js";

// The Gradio house: a value with addresses comes in, as explorer/viewer/host.py describes it.
export function host(element, options) {
  const named = () => new URLSearchParams(location.search);  // what the page is about: explorer/views/page.js
  const viewer = mount(element, null, { ...options, own: () => named().has("model") && !named().has("example") });
  const seen = new Set();
  let head = "", after = "", heard = null;

  function showTrace(value) {
    if (head) viewer.set({ target: value.state?.target ?? START.target }, true);  // another picture: its own answer
    head = value.head;
    after = "";
    seen.clear();
    viewer.setSource(addresses(value)).then((shown) => {
      if (!shown && head === value.head) head = "";  // the same once more is another try
    });
  }

  async function addMaps(value) {
    for (const url of value.maps ?? []) if (!seen.has(url)) {
      seen.add(url);
      try {
        const bytes = await download(url);
        if (value.head === head) await viewer.addMaps(bytes);
      } catch (error) {
        seen.delete(url);  // to be tried again
        viewer.working(error.message);
      }
    }
  }

  return {
    async receive(value) {
      if (!value?.head) return;
      viewer.working(value.progress ?? "");
      if (value.state && value.nonce !== heard) viewer.set(value.state);
      heard = value.nonce;
      if (value.head !== head) showTrace(value);
      if (value.refused) viewer.refuse(value.refused);
      if ((value.after?.head ?? "") !== after) {
        after = value.after?.head ?? "";
        viewer.setAfter(value.after ? addresses(value.after) : null);
      } else if (viewer.after) viewer.answer();  // what was undone in time: it is there already
      await addMaps(value);
    },
  };
}

// The house without a server.
export function embedded(element, messages, options) {
  const viewer = mount(element, inPage(messages), options);
  for (const text of messages.maps ?? []) viewer.addMaps(fromBase64(text));
  return viewer;
}
