// Words -> pictures: POST /v1/images/generations.

import { job, seconds } from "./job.js";
import { blob, button, result, save } from "./result.js";
import { label } from "./say.js";
import { call, server } from "./server.js";

// hand(file, tab) passes a picture on to another tab.
export function start(panel, hand) {
  const form = panel.querySelector("form"), list = panel.querySelector(".results");

  async function draw(signal) {
    const { prompt, aspect, ...numbers } = Object.fromEntries(new FormData(form)), started = performance.now();
    const body = { model: server.model, prompt, aspect, ...filled(numbers) };
    const { data: [picture], size } = await (await call("v1/images/generations", { body, signal })).json();
    const file = new File([blob(picture.b64_json)], "picture.png", { type: "image/png" });
    const image = new Image(), url = URL.createObjectURL(file);
    image.src = url;
    label(image, "alt", "The picture that was asked for");
    const notes = [["{seconds} s", { seconds: seconds(started) }], size, ["seed {seed}", { seed: picture.seed }]];
    const next = [["Edit", "edit"], ["Segment", "segment"]].map(([name, tab]) => button(name, () => hand(file, tab)));
    result(list, image, prompt, notes, save(url, "picture.png"), ...next);
  }

  return job(form, draw);
}

// Number fields that a person has filled in. The seed is chosen here if it is not: the server's own may be larger than
// JavaScript can count, and one could not ask for the same picture again.
export function filled(numbers) {
  const given = Object.entries(numbers).filter(([, text]) => text).map(([name, text]) => [name, Number(text)]);
  return { seed: Math.floor(Math.random() * 2 ** 32), ...Object.fromEntries(given) };
}
