// What a page finds as `ViTViewer`.

export { copied } from "./address.js";
export { unpack } from "./bytes.js";
export { embedded, host } from "./houses.js";
export { mount } from "./mount.js";
export { mountPair } from "./pair.js";
export { addresses, download, kept } from "./sources.js";
export { START } from "./state.js";
