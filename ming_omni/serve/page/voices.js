// The voices of this server: lists of them to choose from, one to answer with, and clones that come and go.

import { job } from "./job.js";
import { can } from "./lacks.js";
import { Picker } from "./picker.js";
import { label, problemOf, put } from "./say.js";
import { call } from "./server.js";

const lists = [...document.querySelectorAll("select.voices")];
const OWN = "default"; // as the server names the talker's own voice
const answering = document.getElementById("voice");

// Who answers in the chat and in conversations; nothing said means the model's own voice.
export const voice = () => answering.value === OWN ? undefined : answering.value;

export function start(panel) {
  const form = document.getElementById("clone"), shelf = panel.querySelector(".shelf");
  const picker = new Picker(form.querySelector(".picker"));
  const problem = form.querySelector(".act ~ .problem");

  async function refresh() {
    const { data } = await (await call("v1/audio/voices")).json();
    for (const list of lists) {
      const chosen = list.value || localStorage.voice;
      list.replaceChildren(...data.map(({ id, type }) => option(id, type)));
      if (data.some(({ id }) => id === chosen)) list.value = chosen;
    }
    shelf.replaceChildren(...data.filter(({ seconds }) => seconds).map(entry));
  }

  function entry({ id, type, seconds, consent }) {
    const [item, name, about, remove] = ["li", "b", "span", "button"].map((tag) => document.createElement(tag));
    name.textContent = id;
    name.translate = false;
    put(about, ["{seconds} s", { seconds: seconds.toFixed(1) }], consent);
    remove.className = "quiet";
    remove.textContent = "×";
    label(remove, "aria-label", ["Delete the voice {name}", { name: id }]);
    remove.onclick = async () => {
      try {
        await call(`v1/audio/voices/${encodeURIComponent(id)}`, { method: "DELETE" });
        await refresh();
      } catch (error) {
        put(problem, problemOf(error));
      }
    };
    item.append(name, about, ...(type === "built_in" ? [] : [remove]));
    return item;
  }

  async function clone(signal) {
    const sample = picker.required, body = new FormData(form);
    if (!body.get("text")) body.delete("text");
    body.append("audio_sample", sample, sample.name);
    const { id } = await (await call("v1/audio/voices", { body, signal })).json();
    await refresh();
    panel.querySelector("select.voices").value = id;
    form.reset();
    picker.drop();
    return [["kept {name}", { name: id }]];
  }

  function take(files) {
    form.querySelector("details").open = true;
    picker.take(files);
  }

  answering.onchange = () => { localStorage.voice = answering.value; };
  const cloning = job(form, clone);
  return { take, stop: cloning.stop, refresh: () => can("speech_out") && refresh() };
}

// The talker's own voice has no name of its own.
function option(id, type) {
  const element = new Option(id, id);
  if (id === OWN) put(element, "The model's own");
  else element.translate = false;
  return element;
}
