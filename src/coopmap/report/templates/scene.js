{ // the three-dimensional part; in a block of its own, so that names do not meet those of the panels
const scene = JSON.parse(document.getElementById("scene").textContent);
const stage = document.getElementById("stage"), [ground, canvas, marks] = stage.querySelectorAll("canvas");
const gl = canvas.getContext("webgl2", {antialias: true});
const state = {source: scene.source, color: "image", shown: {}, agents: scene.agents.map(() => true)};
const view = {yaw: 0, pitch: 0.5, distance: 60, at: [0, 0, 10]};
const FIELD = 0.9; // vertical, radians
let camera = null, waiting = false, picked = null, drawn = 0;

// Matrices are stored row after row.
function times(a, b) {
  return a.map((_, i) => [0, 1, 2, 3].reduce((sum, k) => sum + a[4 * (i >> 2) + k] * b[4 * k + i % 4], 0));
}
const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
const apply = (m, [x, y, z]) => [0, 4, 8].map(i => m[i] * x + m[i + 1] * y + m[i + 2] * z + m[i + 3]);

function look() { // from the frame of the scene (x right, y down, z ahead) to the screen
  const [sy, cy, sp, cp] = [Math.sin(view.yaw), Math.cos(view.yaw), Math.sin(view.pitch), Math.cos(view.pitch)];
  const right = [cy, 0, -sy], ahead = [sy * cp, sp, cy * cp], up = [sy * sp, -cp, cy * sp];
  const eye = view.at.map((value, i) => value - view.distance * ahead[i]);
  const turn = [...right, -dot(right, eye), ...up, -dot(up, eye), ...ahead.map(v => -v), dot(ahead, eye), 0, 0, 0, 1];
  const near = view.distance / 50, far = view.distance + 1500, tall = 1 / Math.tan(FIELD / 2);
  const wide = tall * stage.clientHeight / stage.clientWidth, deep = (near + far) / (near - far);
  const project = [wide, 0, 0, 0, 0, tall, 0, 0, 0, 0, deep, 2 * far * near / (near - far), 0, 0, -1, 0];
  return {matrix: times(project, turn), right, up, near};
}

function toScreen(point) { // pixels, and the distance; null behind the camera
  const m = camera.matrix, [x, y, z] = point;
  const w = m[12] * x + m[13] * y + m[14] * z + m[15];
  if (w < camera.near) return null;
  return [(1 + (m[0] * x + m[1] * y + m[2] * z + m[3]) / w) * stage.clientWidth / 2,
          (1 - (m[4] * x + m[5] * y + m[6] * z + m[7]) / w) * stage.clientHeight / 2, w];
}

// Points

const POINTS = `#version 300 es
uniform mat4 matrix; uniform vec3 low, span; uniform float size, least;
in vec3 position; in vec3 color; out vec3 shade;
void main() {
  gl_Position = matrix * vec4(low + position * span, 1.0);
  gl_PointSize = clamp(size / gl_Position.w, least, 4.0 * least);
  shade = color;
}`;
const FLAT = `#version 300 es
precision mediump float; in vec3 shade; out vec4 pixel;
void main() { pixel = vec4(shade, 1.0); }`;
let program = null, places = null;

function prepare() {
  program = gl.createProgram();
  for (const [kind, text] of [[gl.VERTEX_SHADER, POINTS], [gl.FRAGMENT_SHADER, FLAT]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, text);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw Error(gl.getProgramInfoLog(program));
  places = Object.fromEntries(["matrix", "low", "span", "size", "least"].map(name =>
    [name, gl.getUniformLocation(program, name)]));
}

async function fill(cloud) { // its numbers (see coopmap.viz.scene_page), and buffers for them
  const bytes = await inflate(cloud.data), n = cloud.count;
  cloud.place = new Uint16Array(3 * n);
  for (let axis = 0; axis < 3; axis++)
    for (let i = 0; i < n; i++) cloud.place[3 * i + axis] = bytes[2 * axis * n + i] + (bytes[(2 * axis + 1) * n + i] << 8);
  let start = 6 * n;
  const rest = (name, width) => {
    if (!cloud.has.includes(name)) return;
    cloud[name] = bytes.subarray(start, start += width * n);
  };
  rest("rgb", 3); rest("error", 1); rest("confidence", 1);
  if (!gl) return;
  cloud.array = gl.createVertexArray();
  gl.bindVertexArray(cloud.array);
  for (const [name, type, values] of [["position", gl.UNSIGNED_SHORT, cloud.place], ["color", gl.UNSIGNED_BYTE, null]]) {
    const buffer = gl.createBuffer(), at = gl.getAttribLocation(program, name);
    gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
    if (values) gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, 3, type, true, 0, 0);
    cloud[name + "_buffer"] = buffer;
  }
}

function paintCloud(cloud) { // colors by what is chosen
  const own = scene.agents[cloud.agent].rgb, n = cloud.count, colors = new Uint8Array(3 * n);
  const levels = cloud[state.color], table = scene.scales[state.color];
  for (let i = 0; i < n; i++) {
    const j = 3 * i, rgb = cloud.rgb;
    if (levels && table) colors.set(table[levels[i]], j);
    else if (rgb && state.color === "image") colors.set(rgb.subarray(j, j + 3), j);
    else if (rgb && state.color === "agent") { // lighter and darker as the image, so that shapes can be seen
      const light = 0.55 + 0.6 * (0.3 * rgb[j] + 0.59 * rgb[j + 1] + 0.11 * rgb[j + 2]) / 255;
      for (let k = 0; k < 3; k++) colors[j + k] = Math.min(255, own[k] * light);
    } else colors.set(rgb ? [128, 132, 138] : own, j);
  }
  gl.bindBuffer(gl.ARRAY_BUFFER, cloud.color_buffer);
  gl.bufferData(gl.ARRAY_BUFFER, colors, gl.STATIC_DRAW);
}

const poseOf = cloud => cloud.pose[cloud.fixed || state.source]; // none if it is not known, or no number
const isShown = cloud => state.shown[cloud.layer] && state.agents[cloud.agent] && poseOf(cloud);

function drawPoints(ratio) {
  drawn = 0;
  for (const cloud of scene.clouds) if (isShown(cloud)) drawn += cloud.count;
  if (!gl) return;
  gl.viewport(0, 0, canvas.width, canvas.height);
  gl.clearColor(0, 0, 0, 0);
  gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
  gl.enable(gl.DEPTH_TEST);
  gl.useProgram(program);
  for (const cloud of scene.clouds) {
    if (!isShown(cloud) || !cloud.count) continue;
    gl.uniformMatrix4fv(places.matrix, true, times(camera.matrix, poseOf(cloud)));
    gl.uniform3fv(places.low, cloud.low);
    gl.uniform3fv(places.span, cloud.span);
    gl.uniform1f(places.size, Math.max(scene.voxel, 0.06) * 1.2 * canvas.height / (2 * Math.tan(FIELD / 2)));
    gl.uniform1f(places.least, 1.5 * ratio);
    gl.bindVertexArray(cloud.array);
    gl.drawArrays(gl.POINTS, 0, cloud.count);
  }
}

function pick(x, y) { // the nearest point to the eye within some pixels
  let best = null, depth = Infinity;
  for (const cloud of scene.clouds) {
    if (!isShown(cloud)) continue;
    const m = times(camera.matrix, poseOf(cloud)), {place: at, low, span} = cloud;
    const [a, b, c] = span.map(s => s / 65535);
    for (let i = 0; i < cloud.count; i++) {
      const px = low[0] + at[3 * i] * a, py = low[1] + at[3 * i + 1] * b, pz = low[2] + at[3 * i + 2] * c;
      const w = m[12] * px + m[13] * py + m[14] * pz + m[15];
      if (w < camera.near || w >= depth) continue;
      const dx = (1 + (m[0] * px + m[1] * py + m[2] * pz + m[3]) / w) * stage.clientWidth / 2 - x;
      if (dx > 5 || dx < -5) continue;
      const dy = (1 - (m[4] * px + m[5] * py + m[6] * pz + m[7]) / w) * stage.clientHeight / 2 - y;
      if (dx * dx + dy * dy > 25) continue;
      [best, depth] = [{cloud, index: i, point: [px, py, pz]}, w];
    }
  }
  return best;
}

const unit = value => (value < 0 ? "\u2212" : "+") + Math.abs(value).toFixed(2);

function words({cloud, index, point}) {
  const parts = [cloud.title, "range " + Math.hypot(...point).toFixed(2) + " m"];
  if (cloud.error) {
    const level = cloud.error[index];
    const value = (level - 128) / 127 * scene.error_limit, clipped = level === 1 || level === 255;
    parts.push(level ? `error ${clipped ? "beyond " : ""}${unit(value)} m` : "error unknown");
  }
  if (cloud.confidence) {
    const [low, high] = scene.confidence_limits;
    parts.push("confidence " + (low + (high - low) * cloud.confidence[index] / 255).toPrecision(2));
  }
  const [x, y, z] = apply(poseOf(cloud), point), side = x < 0 ? "left" : "right";
  parts.push(`${Math.abs(x).toFixed(1)} m ${side}, ${Math.abs(z).toFixed(1)} m ${z < 0 ? "behind" : "ahead"}`);
  return parts.join(" \u00b7 ");
}

// Marks: what is drawn over the points, with lines of any width

function line(ink, from, to) { // from and to in the scene; the part before the camera
  const m = camera.matrix, depth = p => m[12] * p[0] + m[13] * p[1] + m[14] * p[2] + m[15];
  let [a, b] = [from, to], [da, db] = [depth(a), depth(b)];
  if (da < camera.near && db < camera.near) return;
  const cut = (p, q, dp, dq) => p.map((v, i) => v + (q[i] - v) * (camera.near * 1.001 - dp) / (dq - dp));
  if (da < camera.near) a = cut(a, b, da, db);
  else if (db < camera.near) b = cut(b, a, db, da);
  const [s, t] = [toScreen(a), toScreen(b)];
  if (!s || !t) return;
  ink.moveTo(s[0], s[1]);
  ink.lineTo(t[0], t[1]);
}

function stroke(ink, color, width, dash, draw) {
  ink.beginPath();
  ink.setLineDash(dash);
  ink.lineWidth = width;
  ink.strokeStyle = color;
  draw();
  ink.stroke();
}

const ARROW = [[0, 0, 2.6], [1.1, 0, -1.6], [0, 0, -0.8], [-1.1, 0, -1.6]];

function arrow(ink, pose, color, filled, paper) {
  const corners = ARROW.map(p => toScreen(apply(pose, p)));
  if (corners.some(p => !p)) return;
  ink.beginPath();
  ink.setLineDash([]);
  corners.forEach(([x, y], i) => i ? ink.lineTo(x, y) : ink.moveTo(x, y));
  ink.closePath();
  ink.lineWidth = filled ? 4 : 5;
  ink.strokeStyle = paper;
  ink.stroke();
  if (filled) { ink.fillStyle = color; ink.fill(); }
  else { ink.lineWidth = 2.5; ink.strokeStyle = color; ink.stroke(); }
}

const EDGES = [...Array(8).keys()].flatMap(k => [1, 2, 4].filter(bit => !(k & bit)).map(bit => [k, k | bit]));

function drawMarks(ink, colors) {
  if (state.shown.boxes)
    stroke(ink, colors.ink, 1.2, [], () => scene.boxes.forEach(box => EDGES.forEach(([i, j]) => line(ink, box[i], box[j]))));
  scene.agents.forEach((agent, number) => {
    const {pred, gt, gps} = agent.pose, own = agent.pose[state.source] || gt || pred;
    if (!state.agents[number] || !own) return;
    if (state.shown.cameras && agent.frusta)
      stroke(ink, agent.color, 1.5, [], () => agent.frusta.forEach(frustum => {
        const p = frustum.map(q => apply(own, q));
        for (let k = 1; k < 5; k++) { line(ink, p[0], p[k]); line(ink, p[k], p[k % 4 + 1]); }
      }));
    const [isPred, isTrue] = [state.shown.pred && pred, state.shown.gt && gt];
    if (isPred && isTrue)
      stroke(ink, agent.color, 2, [5, 4], () => line(ink, apply(gt, [0, 0, 0]), apply(pred, [0, 0, 0])));
    if (isTrue) arrow(ink, gt, agent.color, false, colors.paper);
    if (isPred) arrow(ink, pred, agent.color, true, colors.paper);
    if (state.shown.gps && gps && number) cross(ink, toScreen(apply(gps, [0, 0, 0])), agent.color, colors.paper);
    if (state.shown.names) label(ink, toScreen(apply(own, [0, -2.5, 0])), `${number}: ${agent.name}`, colors);
  });
  if (picked && poseOf(picked.cloud)) {
    const at = toScreen(apply(poseOf(picked.cloud), picked.point));
    if (at) { ink.beginPath(); ink.arc(at[0], at[1], 7, 0, 7); ink.setLineDash([]); ink.lineWidth = 2; ink.strokeStyle = colors.ink; ink.stroke(); }
  }
}

function cross(ink, at, color, paper) {
  if (!at) return;
  for (const [width, shade] of [[5, paper], [2.5, color]])
    stroke(ink, shade, width, [], () => [[-6, -6], [-6, 6]].forEach(([x, y]) => {
      ink.moveTo(at[0] + x, at[1] + y); ink.lineTo(at[0] - x, at[1] - y);
    }));
}

function label(ink, at, text, colors) {
  if (!at) return;
  ink.font = "600 13px system-ui, sans-serif";
  ink.textAlign = "center";
  ink.lineJoin = "round";
  ink.lineWidth = 4;
  ink.setLineDash([]);
  ink.strokeStyle = colors.paper;
  ink.strokeText(text, at[0], at[1]);
  ink.fillStyle = colors.ink;
  ink.fillText(text, at[0], at[1]);
}

function drawGround(ink, colors) { // lines every ten meters, at the height of the road
  if (!state.shown.grid) return;
  const y = scene.ground_m, step = 10, reach = 120;
  stroke(ink, colors.line, 1, [], () => {
    for (let at = -reach; at <= reach; at += step) {
      line(ink, [at, y, -reach], [at, y, reach]);
      line(ink, [-reach, y, at], [reach, y, at]);
    }
  });
}

// Drawing and control

function draw() {
  waiting = false;
  const ratio = Math.min(2, window.devicePixelRatio || 1), style = getComputedStyle(page);
  const colors = Object.fromEntries(["ink", "paper", "line"].map(name => [name, style.getPropertyValue("--" + name).trim()]));
  for (const each of [ground, canvas, marks]) {
    const [width, height] = [Math.round(stage.clientWidth * ratio), Math.round(stage.clientHeight * ratio)];
    if (each.width !== width || each.height !== height) [each.width, each.height] = [width, height];
  }
  camera = look();
  for (const [each, work] of [[ground, drawGround], [marks, drawMarks]]) {
    const ink = each.getContext("2d");
    ink.setTransform(ratio, 0, 0, ratio, 0, 0);
    ink.clearRect(0, 0, stage.clientWidth, stage.clientHeight);
    work(ink, colors);
  }
  drawPoints(ratio);
  const group = value => value.toLocaleString("en-US");
  document.getElementById("count").textContent = `${group(drawn)} points shown; ${scene.count_text}`;
}

function redraw() {
  if (!waiting) requestAnimationFrame(draw);
  waiting = true;
}

function aim(how) { // at all agents
  const places = scene.agents.flatMap(agent => Object.values(agent.pose).map(pose => [pose[3], pose[7], pose[11]]));
  if (!places.length) places.push([0, 0, 0]);
  const middle = [0, 1, 2].map(i => (Math.min(...places.map(p => p[i])) + Math.max(...places.map(p => p[i]))) / 2);
  const spread = Math.max(...places.map(p => Math.hypot(...p.map((v, i) => v - middle[i]))));
  const narrow = Math.max(1, 1.2 * stage.clientHeight / stage.clientWidth);
  Object.assign(view, {yaw: 0, pitch: how === "above" ? Math.PI / 2 : 0.55, at: middle, distance: Math.max(34, 2.6 * spread) * narrow});
  redraw();
}

const down = new Map(); // pointers, with their last place
let moved = false;

function turn(dx, dy) {
  view.yaw -= dx * 0.006;
  view.pitch = Math.min(Math.PI / 2, Math.max(-0.2, view.pitch + dy * 0.006));
}

function shift(dx, dy) {
  const meters = 2 * view.distance * Math.tan(FIELD / 2) / stage.clientHeight;
  view.at = view.at.map((v, i) => v - dx * meters * camera.right[i] + dy * meters * camera.up[i]);
}

function zoomBy(factor) {
  view.distance = Math.min(600, Math.max(3, view.distance * factor));
}

function onMove(event) {
  const before = down.get(event.pointerId), now = [event.clientX, event.clientY];
  if (!before) return hover(event);
  const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
  if (down.size === 2) {
    const [other] = [...down].filter(([id]) => id !== event.pointerId).map(([, at]) => at);
    const apart = at => Math.max(10, Math.hypot(at[0] - other[0], at[1] - other[1]));
    zoomBy(apart(before) / apart(now));
    shift(dx / 2, dy / 2);
  } else if (event.buttons & 2 || event.shiftKey) shift(dx, dy);
  else turn(dx, dy);
  moved = moved || Math.hypot(dx, dy) > 3;
  down.set(event.pointerId, now);
  forget();
  redraw();
}

function forget() {
  picked = null;
  readout.hidden = true;
}

let hovering = null;
function hover(event) {
  if (!hovering) requestAnimationFrame(() => {
    const box = stage.getBoundingClientRect(), last = hovering;
    hovering = null;
    picked = pick(last.clientX - box.left, last.clientY - box.top);
    if (picked) tell(words(picked), last); else forget();
    redraw();
  });
  hovering = event;
}

marks.addEventListener("pointerdown", event => {
  moved = false;
  down.set(event.pointerId, [event.clientX, event.clientY]);
  marks.setPointerCapture(event.pointerId);
});
marks.addEventListener("pointermove", onMove);
for (const end of ["pointerup", "pointercancel"]) marks.addEventListener(end, event => {
  down.delete(event.pointerId);
  if (!moved && event.pointerType === "touch") hover(event); // a tap
});
marks.addEventListener("pointerleave", event => {
  if (event.pointerType !== "touch") { forget(); redraw(); }
});
marks.addEventListener("contextmenu", event => event.preventDefault());
marks.addEventListener("wheel", event => {
  event.preventDefault();
  zoomBy(Math.exp(event.deltaY / 700));
  redraw();
}, {passive: false});
marks.addEventListener("dblclick", event => {
  const box = stage.getBoundingClientRect(), hit = pick(event.clientX - box.left, event.clientY - box.top);
  if (hit) Object.assign(view, {at: apply(poseOf(hit.cloud), hit.point), distance: view.distance / 1.6});
  redraw();
});
for (const box of document.querySelectorAll("[data-show]")) {
  state.shown[box.dataset.show] = box.checked;
  box.addEventListener("change", () => { state.shown[box.dataset.show] = box.checked; redraw(); });
}
for (const box of document.querySelectorAll("[data-agent]")) {
  state.agents[box.dataset.agent] = box.checked;
  box.addEventListener("change", () => { state.agents[box.dataset.agent] = box.checked; redraw(); });
}
function choose(color) {
  state.color = color;
  for (const bar of document.querySelectorAll("[data-of]")) bar.hidden = bar.dataset.of !== color;
  if (gl) scene.clouds.forEach(paintCloud);
  redraw();
}
for (const box of document.querySelectorAll("[name=color]")) box.addEventListener("change", () => choose(box.value));
for (const box of document.querySelectorAll("[name=source]")) {
  if (box.checked) state.source = box.value;
  box.addEventListener("change", () => { state.source = box.value; redraw(); });
}
for (const button of document.querySelectorAll("[data-look]"))
  button.addEventListener("click", () => aim(button.dataset.look));
window.addEventListener("resize", redraw);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
if (gl) prepare();
else stage.insertAdjacentHTML("beforeend", '<p class="alone">This browser has no WebGL 2: points cannot be drawn.</p>');
Promise.all(scene.clouds.map(fill)).then(() => {
  choose(document.querySelector("[name=color]:checked").value);
  aim("behind");
  draw();
  page.dataset.drawn = "yes";
});
}
