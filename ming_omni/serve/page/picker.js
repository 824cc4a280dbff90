// A place for one file: chosen, dropped, pasted or recorded, shown, and taken away again.

import { kindOf } from "./media.js";
import { listen, RATE_HZ } from "./microphone.js";
import { join, wav } from "./pcm.js";
import { label, Problem, problemOf, put } from "./say.js";

const WORDS = {
  image: { choose: "Choose, drop or paste a picture", chosen: "The picture", wrong: "{name} is no picture." },
  audio: { choose: "Choose, drop or paste a recording", chosen: "The recording", wrong: "{name} is no recording." },
};

export class Picker {
  constructor(root) {
    this.kind = root.dataset.kind;
    this.words = WORDS[this.kind];
    this.root = root;
    this.file = null;
    this.input = make("input", "unseen");
    this.input.type = "file";
    this.input.accept = this.accepted;
    label(this.input, "aria-label", this.words.choose);
    this.input.onchange = () => {
      if (this.input.files.length) this.take([...this.input.files]);
      this.input.value = "";
    };
    const choose = make("label", "choose"), words = make("span");
    put(words, this.words.choose);
    choose.append(this.input, words);
    this.shown = make("div", "shown");
    this.problem = make("p", "problem");
    this.problem.setAttribute("role", "alert");
    root.append(choose, this.shown, this.problem);
    if ("records" in root.dataset) choose.after(this.recorder());
  }

  // A recording may also be the sound of a film.
  get accepted() {
    return this.kind === "audio" ? "audio/*,video/*" : "image/*";
  }

  take([file]) {
    this.problem.replaceChildren();
    if (!this.accepted.includes(kindOf(file))) {
      put(this.problem, [this.words.wrong, { name: file.name }]);
      return;
    }
    this.drop();
    this.file = file;
    const medium = make(this.kind === "image" ? "img" : "audio"), remove = make("button", "remove");
    medium.src = URL.createObjectURL(file);
    medium.controls = true;
    label(medium, "aria-label", this.words.chosen);
    remove.type = "button";
    remove.textContent = "×";
    label(remove, "aria-label", "Remove");
    remove.onclick = () => {
      this.drop();
      this.input.focus();
    };
    this.shown.append(medium, remove);
    this.root.classList.add("full");
  }

  drop() {
    const medium = this.shown.firstElementChild;
    if (medium) URL.revokeObjectURL(medium.src);
    this.shown.replaceChildren();
    this.root.classList.remove("full");
    this.file = null;
  }

  // The file, or the sentence that it is missing.
  get required() {
    if (!this.file) throw new Problem(`${this.words.choose}.`);
    return this.file;
  }

  recorder() {
    const button = make("button", "plain record");
    let microphone = null, pieces = [];
    button.type = "button";
    put(button, "Record");
    button.onclick = async () => {
      if (microphone) {
        microphone.stop();
        microphone = null;
        put(button, "Record");
        this.take([new File([wav(join(pieces), RATE_HZ)], "recording.wav", { type: "audio/wav" })]);
        return;
      }
      pieces = [];
      this.problem.replaceChildren();
      try {
        microphone = await listen((piece) => {
          pieces.push(piece);
          const seconds = (pieces.reduce((sum, { length }) => sum + length, 0) / RATE_HZ).toFixed(1);
          put(button, ["Stop recording ({seconds} s)", { seconds }]);
        });
      } catch (error) {
        put(this.problem, problemOf(error));
      }
    };
    return button;
  }
}

export function make(tag, className = "") {
  const element = document.createElement(tag);
  element.className = className;
  return element;
}
