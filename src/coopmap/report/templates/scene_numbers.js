"use strict";
const views = JSON.parse(document.getElementById("numbers").textContent);
const LAYERS = ["range", "truth", "flags"];

function signed(value) {
  const text = Math.abs(value).toFixed(2);
  return (value < 0 && text !== "0.00" ? "\u2212" : "+") + text;
}

function nearest(view, column, row) { // the pixel itself, or the known one that is drawn larger over it
  let best = row * view.width + column, distance = Infinity;
  if (view.truth[best]) return best;
  for (let r = Math.max(0, row - view.reach); r <= Math.min(view.height - 1, row + view.reach); r++)
    for (let c = Math.max(0, column - view.reach); c <= Math.min(view.width - 1, column + view.reach); c++) {
      const i = r * view.width + c, d = (r - row) ** 2 + (c - column) ** 2;
      if (view.truth[i] && d < distance) [best, distance] = [i, d];
    }
  return best;
}

function describe(view, column, row) {
  const i = row * view.width + column, near = nearest(view, column, row), flags = view.flags[i];
  if (!(flags & 1)) return view.title + ": no camera sees this";
  const parts = [view.title, "range " + (view.range[i] * view.range_step).toFixed(2) + " m"];
  if (view.truth[near]) {
    parts.push("true " + (view.truth[near] * view.range_step).toFixed(2) + " m");
    parts.push("error " + signed((view.range[near] - view.truth[near]) * view.range_step) + " m");
  } else if (view.has_truth) parts.push("true range unknown");
  if (view.has_mask && !(flags & 2)) parts.push("masked out by the model");
  else if (!(flags & 4)) parts.push("an edge: not among the points");
  return parts.join(" \u00b7 ");
}
