/* Who is next at the worker: one after another, because a session runs one picture at a time. A look goes before pieces
   of earlier ones, which may be wanted no more, and before nothing else: not before other weights or words. */

const PIECES = new Set(["head", "figures", "layer", "related", "exact", "embeddings", "matches", "forget"]);

/* What was asked in the meantime has been taken by then. */
function heard() {
  const { port1, port2 } = new MessageChannel();
  return new Promise((resolve) => {
    port1.onmessage = () => {
      port1.close();
      resolve();
    };
    port2.postMessage(null);
  });
}

/* serve: async (asked) => ..., which never rejects -> the function that takes what is asked, {ask, ...}. */
export function inTurn(serve) {
  const waiting = [];
  let working = false;

  async function work() {
    working = true;
    while (waiting.length) {
      await serve(waiting.shift());
      await heard();
    }
    working = false;
  }

  return (asked) => {
    let at = waiting.length;
    while (asked.ask === "look" && at && PIECES.has(waiting[at - 1].ask)) at -= 1;
    waiting.splice(at, 0, asked);
    if (!working) work();
  };
}
