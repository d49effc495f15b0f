// What the page says while there is nothing to see yet: how many are served first, or that it does not come; and later
// when the server is gone. A page is never blank or deaf without a word.

const PATIENCE = 25;  // seconds without a picture and without a place in the queue
const PULSE = 5000;  // milliseconds after which a page that is looked at asks whether the server is there
const GONE = "The server does not answer. What is on the screen stays; this goes away when it is back.";

page.waiting = { words: document.createElement("p"), since: Date.now(), name: "", done: false, missed: 0 };
page.waiting.words.className = "vx-waiting";
page.waiting.words.setAttribute("role", "status");

const sayWaiting = (text, again = false) => {
  const { words } = page.waiting;
  if (words.dataset.text === text) return;
  words.dataset.text = text;
  words.textContent = text;
  if (!again) return;
  const button = Object.assign(document.createElement("button"), { type: "button", textContent: "Try again" });
  button.addEventListener("click", () => location.reload());
  words.append(" ", button);
};

// (visitors served before this one, or null where it does not wait) -> a sentence
page.placeInWords = (before, seconds) => {
  if (before > 0) return `${before === 1 ? "One visitor is" : `${before} visitors are`} served before you.`;
  if (before === null && seconds > PATIENCE) return "The picture has not come.";
  return seconds > 3 ? "The model is looking at the picture." : "";
};

const lookAtPlace = async () => {
  const { waiting } = page;
  if (waiting.done) return;
  const main = document.getElementById("main");
  if (main && !waiting.words.isConnected) main.prepend(waiting.words);
  const seconds = (Date.now() - waiting.since) / 1000;
  try {
    const answer = waiting.name ? await (await fetch(`turn/${waiting.name}`)).json() : { before: null };
    const text = page.placeInWords(answer.before, seconds);
    if (!waiting.done) sayWaiting(text, answer.before === null && seconds > PATIENCE);
  } catch {
    if (!waiting.done) sayWaiting("The server does not answer.", true);
  }
  setTimeout(lookAtPlace, 1000);
};

// The server knows this page by this name, and says what it shows first. Returns what the widgets then hold: what was
// chosen before the server answered stands.
page.first = ({ name, built, first }, ...now) => {
  Object.assign(page.waiting, { name });
  return now.map((value, at) => value === built[at] ? first[at] : value);
};

const quiet = () => {
  sayWaiting("");
  page.waiting.words.remove();
};

// Is the server still there? Two that are not answered are one too many.
page.feel = async () => {
  const { waiting } = page;
  if (!document.hidden) {
    const there = await fetch("turn/none", { signal: AbortSignal.timeout(PULSE) }).then((answer) => answer.ok, () => false);
    waiting.missed = there ? 0 : waiting.missed + 1;
    if (waiting.missed === 2) {
      document.body.append(waiting.words);
      sayWaiting(GONE);
    } else if (there) quiet();
  }
  setTimeout(page.feel, PULSE);
};

document.addEventListener("vit-seen", () => {
  page.waiting.done = true;
  quiet();
  setTimeout(page.feel, PULSE);
}, { once: true });
setTimeout(lookAtPlace, 1000);
