// The page's own address, for whatever keeps its state in it.

// A notebook's frame has none that could be written.
export const addressed = () => /^(https?|file):$/.test(location.protocol);

// Without the state: whole, because a page may have a <base>, and a path may begin as a host does.
export const here = () => location.href.split("#")[0];
