// Pictures that zoom and move together, with text under the pointer. Expects before it: views (numbers of each view),
// LAYERS (names of their packed arrays) and describe(view, column, row).
const panels = [...document.querySelectorAll(".panel")];
const page = document.documentElement;
const readout = document.getElementById("readout");
const MOST = 24;
let zoom = 1, left = 0, top_ = 0; // where the pictures' corner lies, in widths and heights of a panel

function paint() {
  left = Math.min(0, Math.max(1 - zoom, left));
  top_ = Math.min(0, Math.max(1 - zoom, top_));
  page.style.setProperty("--zoom", zoom);
  page.style.setProperty("--x", left);
  page.style.setProperty("--y", top_);
  page.classList.toggle("zoomed", zoom > 1);
  hide();
}

function scale(factor, x = 0.5, y = 0.5) { // what lies at (x, y) of the panels stays there
  const next = Math.min(MOST, Math.max(1, zoom * factor));
  left = x - (x - left) * next / zoom;
  top_ = y - (y - top_) * next / zoom;
  zoom = next;
  paint();
}

function place(panel, event) {
  const box = panel.getBoundingClientRect();
  return [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
}

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function unpack(text, height, width) { // see coopmap.viz.packing
  const halves = await inflate(text);
  const values = new Uint16Array(height * width);
  for (let i = 0; i < values.length; i++)
    values[i] = halves[i] + (halves[values.length + i] << 8) + (i % width ? values[i - 1] : 0);
  return values;
}

async function load(view) {
  for (const name of LAYERS) view[name] = await unpack(view[name], view.height, view.width);
  view.ready = true;
}

function tell(text, event) { // beside the pointer
  readout.textContent = text;
  readout.hidden = false;
  const {offsetWidth: width, offsetHeight: height} = readout;
  const above = event.clientY - height - (event.pointerType === "touch" ? 44 : 14);
  readout.style.left = Math.max(4, Math.min(page.clientWidth - width - 4, event.clientX - width / 2)) + "px";
  readout.style.top = (above < 4 ? event.clientY + 20 : above) + "px";
}

function show(panel, event) {
  const number = panel.dataset.view, view = views[number], [x, y] = place(panel, event);
  if (!view.ready || x < 0 || y < 0 || x >= 1 || y >= 1) return hide();
  const column = Math.floor((x - left) / zoom * view.width), row = Math.floor((y - top_) / zoom * view.height);
  tell(describe(view, column, row), event);
  for (const other of panels) {
    const cross = other.querySelector(".cross");
    cross.style.left = 100 * x + "%";
    cross.style.top = 100 * y + "%";
    cross.style.visibility = other !== panel && other.dataset.view === number ? "visible" : "hidden";
  }
}

function hide() {
  readout.hidden = true;
  for (const panel of panels) panel.querySelector(".cross").style.visibility = "hidden";
}

const held = new Map(); // pointers that are down, with their last place

function move(panel, event) {
  if (!held.has(event.pointerId)) return show(panel, event);
  const [x, y] = place(panel, event), before = held.get(event.pointerId);
  if (held.size === 1 && zoom === 1) { // nothing to move
    show(panel, event);
  } else if (held.size === 1) {
    left += x - before[0];
    top_ += y - before[1];
    paint();
  } else {
    const [fixed] = [...held].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const apart = at => Math.hypot((at[0] - fixed[0]) * panel.clientWidth, (at[1] - fixed[1]) * panel.clientHeight);
    scale(apart([x, y]) / Math.max(1, apart(before)), (x + fixed[0]) / 2, (y + fixed[1]) / 2);
  }
  held.set(event.pointerId, [x, y]);
}

for (const panel of panels) {
  panel.addEventListener("pointerdown", event => {
    held.set(event.pointerId, place(panel, event));
    if (event.pointerType === "touch") show(panel, event);
    else panel.setPointerCapture(event.pointerId);
  });
  panel.addEventListener("pointermove", event => move(panel, event));
  for (const end of ["pointerup", "pointercancel"]) panel.addEventListener(end, event => held.delete(event.pointerId));
  panel.addEventListener("pointerleave", event => {
    held.delete(event.pointerId);
    if (event.pointerType !== "touch") hide(); // what a finger pointed at stays to be read
  });
  panel.addEventListener("dblclick", event => scale(2, ...place(panel, event)));
  panel.addEventListener("wheel", event => {
    if (!event.ctrlKey && !event.metaKey) return; // plain scrolling moves the page
    event.preventDefault();
    scale(Math.exp(-event.deltaY / 300), ...place(panel, event));
  }, {passive: false});
}
document.getElementById("closer")?.addEventListener("click", () => scale(1.5));
document.getElementById("farther")?.addEventListener("click", () => scale(1 / 1.5));
document.getElementById("whole")?.addEventListener("click", () => scale(0));
document.getElementById("seams")?.addEventListener("change", event =>
  page.classList.toggle("show-seams", event.target.checked));
Promise.all(views.map(load)).then(() => { page.dataset.ready = "yes"; });
