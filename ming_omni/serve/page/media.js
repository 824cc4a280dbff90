// A file -> a part of a message: a picture no larger than any model looks at, a sound, or a film.

import { Problem } from "./say.js";

const MAX_SIDE = 2048;      // larger pictures are scaled down before they travel
const MAX_PICTURE_BYTES = 2_000_000;
const MAX_BYTES = 45_000_000; // as base64 this fits the largest body that the server takes
const SOUNDS = {
  "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav",
  "audio/mpeg": "mp3", "audio/mp3": "mp3",
};

export const kindOf = (file) => file.type.split("/")[0];

export async function read(file) {
  const { name, size } = file;
  if (kindOf(file) === "image") return { type: "image_url", image_url: { url: await picture(file) } };
  if (size > MAX_BYTES) throw new Problem("{name} is larger than {size} MB.", { name, size: MAX_BYTES / 1e6 });
  if (kindOf(file) === "video") return { type: "video_url", video_url: { url: await dataUrl(file) } };
  const url = await dataUrl(file);
  const format = SOUNDS[file.type] ?? file.type.slice(6).split(";")[0];
  return { type: "input_audio", input_audio: { data: url.slice(url.indexOf(",") + 1), format } };
}

// What shows a part of a message.
export function element(part) {
  if (part.type === "image_url") {
    const image = new Image();
    image.src = part.image_url.url;
    return image;
  }
  const player = document.createElement(part.type === "video_url" ? "video" : "audio");
  const { format, data } = part.input_audio ?? {};
  player.src = part.video_url?.url ?? `data:audio/${format};base64,${data}`;
  player.controls = true;
  return player;
}

async function picture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Problem("{name} cannot be read as a picture.", { name: file.name });
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  if (scale === 1 && file.size <= MAX_PICTURE_BYTES) return dataUrl(file);
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(bitmap.width * scale));
  canvas.height = Math.max(1, Math.round(bitmap.height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "#fff"; // JPEG knows no transparency
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL("image/jpeg", 0.9);
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(new Problem("{name} cannot be read.", { name: file.name }));
    reader.readAsDataURL(file);
  });
}
