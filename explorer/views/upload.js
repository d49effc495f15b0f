// Pictures before they are sent: what a phone takes is larger than the server accepts, and than any model looks at.

const MAX_SENT = 2 * 2 ** 20;  // bytes that are sent as they are: a class shares what one address may send
const MAX_SIDE = 2048;  // pixels of what is shrunk: the server keeps no more either,
const FRAME_SIDE = 512;  // nor of a frame of a clip

// (File) -> the same picture as a smaller File; the File itself if it is small or no picture that a browser reads
page.shrunk = async (file, most = MAX_SENT, side = MAX_SIDE) => {
  if (!file || file.size <= most) return file;
  let picture;
  try {
    picture = await createImageBitmap(file);  // upright, as the camera was held
  } catch {
    return file;  // the server says what is wrong with it
  }
  const scale = Math.min(1, side / Math.max(picture.width, picture.height));
  const canvas = Object.assign(document.createElement("canvas"), {
    width: Math.max(1, Math.round(scale * picture.width)),
    height: Math.max(1, Math.round(scale * picture.height)),
  });
  const pen = canvas.getContext("2d");
  pen.imageSmoothingQuality = "high";
  pen.fillStyle = "#fff";  // under what is transparent, as the server has it
  pen.fillRect(0, 0, canvas.width, canvas.height);
  pen.drawImage(picture, 0, 0, canvas.width, canvas.height);
  picture.close();
  const content = await new Promise((resolve) => canvas.toBlob(resolve, "image/jpeg", 0.92));
  return content ? new File([content], file.name.replace(/\.\w+$/, "") + ".jpg", { type: "image/jpeg" }) : file;
};

// Gradio's own listeners get the smaller files, as if they had been chosen; not if another choice was made meanwhile.
let choices = 0;
const passOn = async (event, input, files, ...limits) => {
  if (!input) return;
  event.preventDefault();
  event.stopImmediatePropagation();
  const mine = choices, chosen = new DataTransfer();
  for (const file of files) chosen.items.add(await page.shrunk(file, ...limits));
  if (mine !== choices) return;
  input.files = chosen.files;
  page.passing = true;
  input.dispatchEvent(new Event("change", { bubbles: true }));
  page.passing = false;
};

const ofClips = () => document.querySelector("input[type=file][accept*='.mp4']");
const asFrames = (event, files) => passOn(event, ofClips(), files, MAX_SENT / files.length, FRAME_SIDE);

// A video or GIF goes the way of "Bring a clip", and so do several pictures: the frames of one, sent all at once.
const takeOver = (event, files, input) => {
  const [file] = files ?? [], several = files?.length > 1 && [...files].every(({ type }) => type.startsWith("image/"));
  if (/^video\/|^image\/gif$/.test(file?.type)) passOn(event, ofClips(), [file], Infinity);
  else if (several) asFrames(event, [...files]);
  else if (file?.size > MAX_SENT) passOn(event, input, [file]);
};
addEventListener("change", (event) => {
  const input = event.target.closest?.("#picture input[type=file]"), clips = event.target === ofClips();
  if (page.passing || !input && !clips) return;
  choices += 1;
  if (input) takeOver(event, input.files, input);
  else if (event.target.files.length > 1) asFrames(event, [...event.target.files]);
}, true);
addEventListener("click", (event) => { if (event.target.closest?.("[data-example]")) choices += 1; }, true);
for (const kind of ["drop", "paste"]) {
  addEventListener(kind, (event) => {
    if (!event.target.closest?.("#picture")) return;
    const files = (event.dataTransfer ?? event.clipboardData)?.files;
    if (files?.length) choices += 1;
    takeOver(event, files, document.querySelector("#picture input[type=file]"));
  }, true);
}

// No button for a camera that is not there.
const haveCamera = async () => {
  const devices = await navigator.mediaDevices?.enumerateDevices?.().catch(() => []);
  document.documentElement.classList.toggle("vx-no-camera", !devices?.some(({ kind }) => kind === "videoinput"));
};
haveCamera();
navigator.mediaDevices?.addEventListener?.("devicechange", haveCamera);
