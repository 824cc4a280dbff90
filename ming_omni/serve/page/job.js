// A form and the work it asks for -> a button that starts it, one that stops it, its seconds, and what went wrong.

import { problemOf, put } from "./say.js";

// work(signal, tell) does it; tell(...sentences) shows how far it is. Sentences that work returns are shown at the end.
export function job(form, work) {
  const parts = [".go", ".stop", ".note", ".act ~ .problem"];
  const [go, stop, note, problem] = parts.map((name) => form.querySelector(name));
  let running = null;

  async function start() {
    if (running) return;
    running = new AbortController();
    const { signal } = running, started = performance.now();
    let told = [];
    const tell = (...sentences) => {
      told = sentences;
      put(note, ["{seconds} s", { seconds: seconds(started) }], ...told);
    };
    const clock = setInterval(() => tell(...told), 100);
    note.ariaLive = "off"; // nobody wants to hear it count
    show(true);
    problem.replaceChildren();
    tell();
    try {
      const sentences = await work(signal, tell);
      note.ariaLive = "polite";
      put(note, ...(sentences ?? []));
    } catch (error) {
      note.ariaLive = "polite";
      if (signal.aborted) put(note, "stopped");
      else {
        note.replaceChildren();
        put(problem, problemOf(error));
      }
    }
    clearInterval(clock);
    running = null;
    show(false);
  }

  function show(isRunning) {
    const hadFocus = form.contains(document.activeElement) && document.activeElement.closest(".act");
    go.hidden = isRunning;
    stop.hidden = !isRunning;
    form.ariaBusy = String(isRunning);
    if (hadFocus) (isRunning ? stop : go).focus();
  }

  form.onsubmit = (event) => {
    event.preventDefault();
    start();
  };
  stop.onclick = () => running?.abort();
  // As in the chat, Enter asks and Shift+Enter starts a line, where what is asked is one sentence.
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing || event.target.name !== "prompt") return;
    event.preventDefault();
    form.requestSubmit();
  });
  return { stop: () => running?.abort(), get isRunning() { return Boolean(running); } };
}

export const seconds = (started) => ((performance.now() - started) / 1000).toFixed(1);
