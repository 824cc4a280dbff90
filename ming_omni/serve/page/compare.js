// Two pictures of the same thing -> one over the other, and a slider that moves the border between them.

import { label, put } from "./say.js";

export function compare(before, after) {
  const root = document.createElement("div"), slider = document.createElement("input");
  root.className = "compare";
  slider.type = "range";
  slider.min = 0;
  slider.max = 100;
  slider.value = 50;
  label(slider, "aria-label", "From before to after");
  slider.oninput = () => root.style.setProperty("--at", `${slider.value}%`);
  slider.oninput();
  // The model stretches a picture to one of its own sizes; laid over the first one, the answer is stretched back.
  root.append(side(before, "before", "Before"), side(after, "after", "After"), slider);
  return root;
}

function side(url, name, english) {
  const element = document.createElement("div"), image = new Image(), tag = document.createElement("span");
  element.className = name;
  image.src = url;
  label(image, "alt", english);
  put(tag, english);
  element.append(image, tag);
  return element;
}
