"use strict";
const views = JSON.parse(document.getElementById("numbers").textContent);
const LAYERS = ["range", "truth", "flags"];

function signed(value) {
  const text = Math.abs(value).toFixed(2);
  return (value < 0 && text !== "0.00" ? "\u2212" : "+") + text;
}

function describe(view, column, row) {
  const i = row * view.width + column, near = nearest(view, view.truth, column, row), flags = view.flags[i];
  if (!(flags & 1)) return view.title + ": no camera sees this";
  const known = view.range[i] > 0;
  const parts = [view.title, known ? "range " + (view.range[i] * view.range_step).toFixed(2) + " m" : "range unknown"];
  if (view.truth[near]) {
    parts.push("true " + (view.truth[near] * view.range_step).toFixed(2) + " m");
    if (view.range[near]) parts.push("error " + signed((view.range[near] - view.truth[near]) * view.range_step) + " m");
  } else if (view.has_truth) parts.push("true range unknown");
  if (view.has_mask && !(flags & 2)) parts.push("masked out by the model");
  else if (known && !(flags & 4)) parts.push("an edge: not among the points");
  return parts.join(" \u00b7 ");
}
