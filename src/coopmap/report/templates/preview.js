"use strict";
const {views, cameras} = JSON.parse(document.getElementById("numbers").textContent);
const LAYERS = ["range", "azimuth", "elevation", "camera", "covered"];

function nearest(view, column, row) { // the pixel itself, or the known one that is drawn larger over it
  let best = row * view.width + column, distance = Infinity;
  if (view.range[best]) return best;
  for (let r = Math.max(0, row - view.reach); r <= Math.min(view.height - 1, row + view.reach); r++)
    for (let c = Math.max(0, column - view.reach); c <= Math.min(view.width - 1, column + view.reach); c++) {
      const i = r * view.width + c, d = (r - row) ** 2 + (c - column) ** 2;
      if (view.range[i] && d < distance) [best, distance] = [i, d];
    }
  return best;
}

function signed(value) {
  const text = Math.abs(value).toFixed(1);
  return (value < 0 && text !== "0.0" ? "\u2212" : "+") + text + "\u00b0";
}

function describe(view, column, row) {
  const i = nearest(view, column, row);
  if (!view.covered[i]) return view.title + (view.name ? `: the ${view.name} camera does not see this` : ": no camera sees this");
  const parts = [view.title];
  parts.push("azimuth " + signed(view.azimuth[i] * view.angle_step - 180));
  parts.push("elevation " + signed(view.elevation[i] * view.angle_step - 90));
  if (view.has_range) parts.push(view.range[i] ? (view.range[i] * view.range_step).toFixed(2) + " m" : "range unknown");
  if (view.camera[i]) parts.push(cameras[view.camera[i] - 1] + " camera");
  return parts.join(" \u00b7 ");
}
