// A file -> a part of a message: a picture no larger than any model looks at, or a sound.

const MAX_SIDE = 2048;      // larger pictures are scaled down before they travel
const MAX_BYTES = 2_000_000;
const SOUNDS = { "audio/wav": "wav", "audio/x-wav": "wav", "audio/wave": "wav", "audio/mpeg": "mp3", "audio/mp3": "mp3" };

export async function read(file) {
  if (file.type.startsWith("image/")) return { type: "image_url", image_url: { url: await picture(file) } };
  if (file.type.startsWith("audio/")) {
    const url = await dataUrl(file);
    const format = SOUNDS[file.type] ?? file.type.slice(6).split(";")[0];
    return { type: "input_audio", input_audio: { data: url.slice(url.indexOf(",") + 1), format } };
  }
  throw new Error(`${file.name} is neither a picture nor a sound.`);
}

async function picture(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name} cannot be read as a picture.`);
  }
  const scale = Math.min(1, MAX_SIDE / Math.max(bitmap.width, bitmap.height));
  if (scale === 1 && file.size <= MAX_BYTES) return dataUrl(file);
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
    reader.onerror = () => reject(new Error(`${file.name} cannot be read.`));
    reader.readAsDataURL(file);
  });
}
