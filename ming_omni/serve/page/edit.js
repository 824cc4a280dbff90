// A picture and what should change -> the same picture changed, beside the first: POST /v1/images/edits.

import { compare } from "./compare.js";
import { filled } from "./draw.js";
import { job, seconds } from "./job.js";
import { Picker } from "./picker.js";
import { blob, button, result, save } from "./result.js";
import { call, server } from "./server.js";

export function start(panel) {
  const form = panel.querySelector("form"), list = panel.querySelector(".results");
  const picker = new Picker(panel.querySelector(".picker"));

  async function edit(signal) {
    const image = picker.required, { prompt, ...numbers } = Object.fromEntries(new FormData(form));
    const body = new FormData(), started = performance.now();
    const fields = { image, model: server.model, prompt, ...filled(numbers) };
    for (const [name, value] of Object.entries(fields)) body.append(name, value);
    const { data: [picture], size } = await (await call("v1/images/edits", { body, signal })).json();
    const file = new File([blob(picture.b64_json)], "edited.png", { type: "image/png" });
    const url = URL.createObjectURL(file);
    const notes = [["{seconds} s", { seconds: seconds(started) }], size, ["seed {seed}", { seed: picture.seed }]];
    const again = button("Edit further", () => picker.take([file]));
    result(list, compare(URL.createObjectURL(image), url), prompt, notes, save(url, "edited.png"), again);
  }

  return Object.assign(job(form, edit), { take: (files) => picker.take(files) });
}
