"use strict";
const {views, cameras} = JSON.parse(document.getElementById("numbers").textContent);
const LAYERS = ["range", "azimuth", "elevation", "camera", "covered"];

function signed(value) {
  const text = Math.abs(value).toFixed(1);
  return (value < 0 && text !== "0.0" ? "\u2212" : "+") + text + "\u00b0";
}

function describe(view, column, row) {
  const i = nearest(view, view.range, column, row);
  if (!view.covered[i]) return view.title + (view.name ? `: the ${view.name} camera does not see this` : ": no camera sees this");
  const parts = [view.title];
  parts.push("azimuth " + signed(view.azimuth[i] * view.angle_step - 180));
  parts.push("elevation " + signed(view.elevation[i] * view.angle_step - 90));
  if (view.has_range) parts.push(view.range[i] ? (view.range[i] * view.range_step).toFixed(2) + " m" : "range unknown");
  if (view.camera[i]) parts.push(cameras[view.camera[i] - 1] + " camera");
  return parts.join(" \u00b7 ");
}
