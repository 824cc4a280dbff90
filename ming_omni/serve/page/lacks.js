// What the model can do -> what the page offers; for the rest one sentence that says why not.

import { label, put } from "./say.js";
import { server } from "./server.js";

const WHY = {
  image_in: "{model} cannot see: it has no vision encoder.",
  video_in: "{model} cannot see: it has no vision encoder.",
  audio_in: "{model} cannot hear: it has no audio encoder.",
  image_out: "{model} cannot paint: it has no painter.",
  speech_out: "{model} cannot speak: it has no talker.",
};
const NEEDS = {
  talk: ["audio_in"],
  draw: ["image_out"],
  edit: ["image_in", "image_out"],
  segment: ["image_in", "image_out"],
  speak: ["speech_out"],
  transcribe: ["audio_in"],
};

export const can = (kind) => server.capabilities.includes(kind);

// The first of some abilities that is lacking, as a sentence.
export function lack(...kinds) {
  const missing = kinds.find((kind) => !can(kind));
  return missing && [WHY[missing], { model: server.model }];
}

// Controls that would be refused cannot be used; their tab still opens, so that one can read why.
export function apply() {
  for (const [name, kinds] of Object.entries(NEEDS)) {
    const reason = lack(...kinds);
    if (!reason) continue;
    const panel = document.getElementById(name), tab = document.getElementById(`tab-${name}`);
    tab.classList.add("lacking");
    panel.classList.add("lacking");
    disable(panel.querySelectorAll("button, input, select, textarea"));
    panel.querySelector(".lack").hidden = false;
    put(panel.querySelector(".lack"), reason);
  }
  const silent = lack("speech_out"), isReader = ["image_in", "audio_in", "video_in"].every((kind) => !can(kind));
  if (silent) {
    refuse("aloud", silent);
    disable([document.getElementById("voice")]);
  }
  if (isReader) {
    const reason = ["{model} reads text only.", { model: server.model }];
    refuse("attach", reason);
    disable([document.getElementById("files")]);
    put(document.getElementById("invitation"), reason);
  }
}

function refuse(id, reason) {
  const element = document.getElementById(id);
  disable([element]);
  element.classList.add("lacking");
  label(element, "title", reason);
}

function disable(controls) {
  for (const control of controls) control.disabled = true;
}
