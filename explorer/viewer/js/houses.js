// Where a viewer lives: in a Gradio page, or in a page that holds its own bytes.

import { fromBase64 } from "./bytes.js";
import { mount } from "./mount.js";
import { addresses, download, inPage, kept } from "./sources.js";
import { START } from "./state.js";

// What a value shows; of a clip that a model of pictures looks at there is a trace for each frame.
function sourceOf(viewer, value) {
  const moments = (value.timeline ?? []).map((moment) => ({ ...moment, source: kept(addresses(moment)) }));
  viewer.setTimeline(moments, () => download(value.follow));
  if (!moments.length) return addresses(value);
  if (viewer.moment.head !== value.head) viewer.tellFrame();  // it is another that is looked at here
  return viewer.moment.source;
}

// The Gradio house: a value with addresses comes in, as explorer/viewer/host.py describes it.
export function host(element, options) {
  const viewer = mount(element, null, { ...options, own: () => window.vitPage?.own() });  // of explorer/views/page.js
  const seen = new Set();
  const onScreen = () => viewer.moment?.head ?? head;
  let head = "", after = "", heard = null, frames = [];

  function showTrace(value) {
    if (head) viewer.set({ target: value.state?.target ?? START.target }, true);  // another picture: its own answer
    const source = sourceOf(viewer, value), mine = head = viewer.moment?.head ?? value.head;
    frames = (value.timeline ?? []).map((moment) => moment.head);
    after = "";
    seen.clear();
    viewer.setSource(source).then((shown) => {
      if (!shown && head === mine) head = "";  // the same once more is another try
    });
  }

  function showAfter(value) {
    const mine = after = value?.head ?? "";
    viewer.setAfter(value ? { ...addresses(value), edits: value.edits } : null).then((shown) => {
      if (!shown && after === mine) after = null;  // the same once more is another try
    });
  }

  async function addMaps(value) {
    for (const url of value.maps ?? []) if (!seen.has(url)) {
      seen.add(url);
      try {
        const bytes = await download(url);
        if (value.head === onScreen()) await viewer.addMaps(bytes);
        else seen.delete(url);  // somebody has moved through time
      } catch (error) {
        seen.delete(url);  // to be tried again
        if (value.head === onScreen()) viewer.working(error.message);
      }
    }
  }

  return {
    async receive(value) {
      if (!value?.head) return;
      if (onScreen() !== head) {  // somebody has moved through time
        head = onScreen();
        after = "";
        seen.clear();
      }
      if (value.head !== head && frames.includes(value.head) && frames.includes(head)) return;  // of a frame that was left
      viewer.working(value.progress ?? "");
      if (value.state && value.nonce !== heard) viewer.set(value.state);
      heard = value.nonce;
      if (value.head !== head) showTrace(value);
      if (value.refused) viewer.refuse(value.refused);
      if ((value.after?.head ?? "") !== after) showAfter(value.after);
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
