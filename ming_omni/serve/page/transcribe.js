// A recording, and words that may occur in it -> what is said, as it is understood: POST /v1/audio/transcriptions.

import { job, seconds } from "./job.js";
import { Picker } from "./picker.js";
import { button, result } from "./result.js";
import { Problem, put } from "./say.js";
import { call, events, server } from "./server.js";

export function start(panel) {
  const form = panel.querySelector("form"), list = panel.querySelector(".results");
  const picker = new Picker(panel.querySelector(".picker"));

  async function transcribe(signal) {
    const file = picker.required, started = performance.now();
    const text = document.createElement("p");
    text.className = "transcript";
    text.translate = false;
    let done = null, figure = null;
    try {
      for await (const event of events(await call("v1/audio/transcriptions", { body: request(file), signal }))) {
        if (event.delta) {
          figure ??= result(list, text, file.name, []);
          text.append(event.delta);
        }
        if (event.type === "transcript.text.done") done = event;
      }
    } finally {
      if (figure && !done) put(figure.querySelector(".note"), "not complete");
    }
    if (!done) throw new Problem("The connection broke off: this transcript is not complete.");
    figure?.remove();
    text.textContent = done.text;
    const length = done.usage.seconds, factor = (1000 * length) / (performance.now() - started);
    const notes = [
      ["{length} s of sound in {seconds} s", { length: length.toFixed(1), seconds: seconds(started) }],
      ["{factor} times as fast as it is spoken", { factor: factor.toFixed(1) }],
    ];
    if (!done.text) notes.unshift("Nobody speaks in this recording.");
    const copy = button("Copy", () => navigator.clipboard.writeText(done.text));
    result(list, text, file.name, notes, ...(done.text ? [copy] : []));
  }

  function request(file) {
    const { words, topic, language } = Object.fromEntries(new FormData(form)), body = new FormData();
    const known = { topic, words: words.split("\n").map((word) => word.trim()).filter(Boolean) };
    body.append("file", file, file.name);
    body.append("model", server.model);
    body.append("stream", "true");
    if (language) body.append("language", language);
    if (topic || known.words.length) body.append("context", JSON.stringify(known));
    return body;
  }

  return Object.assign(job(form, transcribe), { take: (files) => picker.take(files) });
}
