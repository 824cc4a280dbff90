// A picture and the names of things in it -> a mask of each thing: POST /v1/images/segmentations.

import { filled } from "./draw.js";
import { job, seconds } from "./job.js";
import { overlay } from "./masks.js";
import { Picker } from "./picker.js";
import { blob, result, save } from "./result.js";
import { call, server } from "./server.js";

const COLORS = {
  red: [255, 0, 0], green: [0, 255, 0], blue: [0, 0, 255], yellow: [255, 255, 0], magenta: [255, 0, 255],
  cyan: [0, 255, 255], orange: [255, 128, 0], purple: [128, 0, 255], white: [255, 255, 255], black: [0, 0, 0],
};

export function start(panel) {
  const form = panel.querySelector("form"), list = panel.querySelector(".results");
  const picker = new Picker(panel.querySelector(".picker"));

  async function segment(signal) {
    const image = picker.required, { what, ...numbers } = Object.fromEntries(new FormData(form));
    const body = new FormData(), started = performance.now();
    const things = what.split(/[,，、]/).map((name) => name.trim()).filter(Boolean);
    const fields = { image, model: server.model, ...filled(numbers) };
    for (const [name, value] of Object.entries(fields)) body.append(name, value);
    for (const name of things) body.append("what", name);
    const { data, seed } = await (await call("v1/images/segmentations", { body, signal })).json();
    const notes = [["{seconds} s", { seconds: seconds(started) }], ["seed {seed}", { seed }]];
    const files = data.map((mask) => blob(mask.b64_json));
    const images = await Promise.all(files.map((file) => createImageBitmap(file)));
    const masks = data.map(({ name, color }, i) => ({ name, color: COLORS[color], image: images[i] }));
    const [shown, names] = overlay(URL.createObjectURL(image), masks);
    const saves = files.map((file, i) => {
      const { name } = data[i];
      return save(URL.createObjectURL(file), `${name}.png`, ["Save {name}", { name }]);
    });
    result(list, shown, what, [...areas(data, images), ...notes], names, ...saves);
  }

  return Object.assign(job(form, segment), { take: (files) => picker.take(files) });
}

// How much of the picture each mask covers.
function areas(masks, images) {
  return masks.map(({ name, area }, i) => {
    const share = ((100 * area) / (images[i].width * images[i].height)).toFixed(1);
    return ["{name}: {share}% of the picture", { name, share }];
  });
}
