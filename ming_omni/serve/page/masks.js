// A picture and its masks -> the picture, with masks that a click on them, or on their names, shows and hides.

import { label } from "./say.js";

const OPACITY = 150; // of 255
const INSIDE = 127;  // masks are white inside, black outside

// masks: [{ name, color: [r, g, b], image: ImageBitmap }], all of the picture's size. Returns picture and names.
export function overlay(url, masks) {
  const root = document.createElement("div"), names = document.createElement("div"), picture = new Image();
  root.className = "overlay";
  names.className = "names";
  names.setAttribute("role", "group");
  label(names, "aria-label", "Masks");
  picture.src = url;
  label(picture, "alt", "The picture");
  const layers = masks.map((mask) => layer(mask));
  layers.forEach(({ button, canvas }) => {
    button.onclick = () => toggle({ button, canvas });
    names.append(button);
  });
  root.append(picture, ...layers.map(({ canvas }) => canvas));
  root.onclick = (event) => {
    const { left, top, width, height } = picture.getBoundingClientRect();
    const x = (event.clientX - left) / width, y = (event.clientY - top) / height;
    const hit = layers.find(({ canvas, inside }) =>
      inside[Math.floor(y * canvas.height) * canvas.width + Math.floor(x * canvas.width)]);
    if (hit) toggle(hit);
  };
  return [root, names];
}

function toggle({ button, canvas }) {
  canvas.hidden = !canvas.hidden;
  button.setAttribute("aria-pressed", String(!canvas.hidden));
}

function layer({ name, color, image }) {
  const canvas = document.createElement("canvas"), button = document.createElement("button");
  const swatch = document.createElement("i"), { width, height } = image;
  Object.assign(canvas, { width, height });
  const context = canvas.getContext("2d");
  context.drawImage(image, 0, 0);
  const pixels = context.getImageData(0, 0, width, height);
  const inside = new Uint8Array(width * height);
  for (let i = 0; i < inside.length; i++) {
    inside[i] = pixels.data[4 * i] > INSIDE;
    pixels.data.set([...color, inside[i] * OPACITY], 4 * i);
  }
  context.putImageData(pixels, 0, 0);
  button.type = "button";
  button.className = "plain toggle";
  button.translate = false;
  button.setAttribute("aria-pressed", "true");
  swatch.style.background = `rgb(${color})`;
  button.append(swatch, name);
  return { canvas, button, inside };
}
