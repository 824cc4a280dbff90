// What a person writes, pastes or drops -> a request; the events that come back -> text and speech, as they arrive.

import { lack } from "./lacks.js";
import { element, kindOf, read } from "./media.js";
import { fromBase64, join, wav } from "./pcm.js";
import { Player } from "./player.js";
import { label, Problem, problemOf, put } from "./say.js";
import { call, events, server } from "./server.js";
import { load, save } from "./store.js";
import { write } from "./text.js";
import { voice } from "./voices.js";

const SPEECH_HZ = 24000; // of the chat's streamed speech, as OpenAI has it
const KINDS = { image: "image_in", audio: "audio_in", video: "video_in" };
const ALT = { image_url: "Attached picture", video_url: "Attached film", input_audio: "Attached sound" };

const $ = (id) => document.getElementById(id);
const log = $("log"), text = $("text");

const state = {
  messages: [],    // as OpenAI writes them; answers also carry `notes`, what their footer says
  attached: [],    // parts for the next message
  running: null,   // AbortController of the answer being written
  player: null,    // says the answers
};

// ---- showing ----

function partsOf(message) {
  return typeof message.content === "string" ? [{ type: "text", text: message.content }] : message.content;
}

function medium(part) {
  const shown = element(part);
  label(shown, "aria-label", ALT[part.type]);
  return shown;
}

function show(message) {
  $("welcome").hidden = true;
  const article = $("message").content.firstElementChild.cloneNode(true);
  article.className = message.role;
  const parts = partsOf(message);
  article.querySelector(".media").replaceChildren(...parts.filter((p) => p.type !== "text").map(medium));
  write(article.querySelector(".text"), parts.filter((p) => p.type === "text").map((p) => p.text).join(""));
  put(article.querySelector("footer"), ...(message.notes ?? []));
  log.append(article);
  return article;
}

export function showError(sentence) {
  const article = show({ role: "error", content: "" });
  article.setAttribute("role", "alert");
  put(article.querySelector(".text"), sentence);
  scroll();
}

// Follow the text while it grows, unless the reader has scrolled away from the end.
const isAtEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < 80;
const scroll = () => { log.scrollTop = log.scrollHeight; };

function showAttached() {
  $("attached").replaceChildren(...state.attached.map((part) => {
    const figure = document.createElement("figure");
    const remove = document.createElement("button");
    remove.type = "button";
    remove.textContent = "×";
    label(remove, "aria-label", "Remove attachment");
    remove.onclick = () => {
      state.attached = state.attached.filter((other) => other !== part);
      showAttached();
      text.focus();
    };
    figure.append(medium(part), remove);
    return figure;
  }));
  showButtons();
}

function showButtons() {
  $("send").hidden = Boolean(state.running);
  $("stop").hidden = !state.running;
  $("send").disabled = !text.value.trim() && !state.attached.length;
  log.setAttribute("aria-busy", String(Boolean(state.running)));
}

function fit() {
  text.style.height = "auto";
  text.style.height = `${text.scrollHeight}px`;
  showButtons();
}

// ---- asking ----

const isAloud = () => $("aloud").ariaPressed === "true" && !lack("speech_out");

function request() {
  const system = $("system").value.trim();
  const messages = state.messages.map(({ role, content }) => ({ role, content }));
  const body = { model: server.model, messages, stream: true, stream_options: { include_usage: true } };
  if (system) messages.unshift({ role: "system", content: system });
  if ($("temperature").value) body.temperature = Number($("temperature").value);
  if ($("max-tokens").value) body.max_tokens = Number($("max-tokens").value);
  if (isAloud()) {
    body.modalities = ["text", "audio"];
    body.audio = { format: "pcm16", voice: voice() };
  }
  return body;
}

// How fast: tokens after the first one, over the time since it came.
function speed(numTokens, started, first, ended) {
  if (!first) return [];
  const seconds = (ended - first) / 1000;
  const notes = [
    [numTokens === 1 ? "1 token" : "{count} tokens", { count: numTokens }],
    ["first after {seconds} s", { seconds: ((first - started) / 1000).toFixed(2) }],
  ];
  const rate = numTokens > 1 && seconds > 0 && ((numTokens - 1) / seconds).toFixed(1);
  return rate ? [["{rate} tokens/s", { rate }], ...notes] : notes;
}

async function answer() {
  const message = { role: "assistant", content: "", notes: [] };
  const article = show(message), started = performance.now(), sound = [];
  let first = 0, last = 0, numTokens = 0, reason = null, failure = null;
  const running = state.running = new AbortController();
  article.classList.add("writing");
  showButtons();
  scroll();
  const draw = () => {
    const follow = isAtEnd();
    write(article.querySelector(".text"), message.content);
    message.notes = speed(numTokens, started, first, last);
    put(article.querySelector("footer"), ...message.notes);
    if (follow) scroll();
  };
  let drawing = 0;
  try {
    const response = await call("v1/chat/completions", { body: request(), signal: running.signal });
    for await (const event of events(response)) {
      const choice = event.choices[0];
      if (event.usage) numTokens = event.usage.completion_tokens;
      const written = choice?.delta.content || choice?.delta.audio?.transcript;
      if (written) {
        last = performance.now();
        first ||= last;
        numTokens += 1;
        message.content += written;
        drawing ||= requestAnimationFrame(() => { drawing = 0; draw(); });
      }
      if (choice?.delta.audio?.data) {
        sound.push(fromBase64(choice.delta.audio.data));
        state.player?.push(sound.at(-1));
      }
      reason = choice?.finish_reason ?? reason;
    }
    // An answer that is whole says how it ended.
    if (!reason) failure = new Problem("The connection broke off: this answer is not complete.");
  } catch (error) {
    if (error.name === "AbortError") reason = "stopped";
    else failure = error;
  }
  cancelAnimationFrame(drawing);
  if (state.running !== running) return;
  draw();
  const remark = failure ? "not complete" : { length: "cut at the limit", stopped: "stopped" }[reason];
  if (remark) message.notes.push(remark);
  put(article.querySelector("footer"), ...message.notes);
  article.classList.remove("writing");
  article.classList.toggle("cut", Boolean(failure));
  state.running = null;
  if (sound.length) article.querySelector(".media").append(replay(join(sound)));
  if (message.content) state.messages.push(message);
  else article.remove();
  if (failure) {
    showError(problemOf(failure));
    if (!message.content) takeBack();
  }
  await save(state.messages); // what is shown as done, a reload finds again
  showButtons();
}

function replay(samples) {
  const player = document.createElement("audio");
  player.controls = true;
  player.src = URL.createObjectURL(wav(samples, SPEECH_HZ));
  label(player, "aria-label", "The answer, spoken");
  return player;
}

// What could not be answered returns to where it was written.
function takeBack() {
  const message = state.messages.pop();
  const parts = partsOf(message);
  state.attached = parts.filter((part) => part.type !== "text");
  text.value = parts.filter((part) => part.type === "text").map((part) => part.text).join("");
  [...log.querySelectorAll("article.user")].at(-1).remove();
  showAttached();
  fit();
}

function send() {
  const written = text.value.trim();
  if (state.running || (!written && !state.attached.length)) return;
  const content = [...state.attached, ...(written ? [{ type: "text", text: written }] : [])];
  const message = { role: "user", content: state.attached.length ? content : written };
  state.messages.push(message);
  state.attached = [];
  text.value = "";
  log.querySelectorAll(".error").forEach((article) => article.remove());
  show(message);
  showAttached();
  fit();
  text.focus();
  hush();
  // Browsers let a page make sound only from within what a person does, so the loudspeaker is opened here.
  if (isAloud()) state.player ??= new Player(SPEECH_HZ);
  answer();
}

const hush = () => { state.player?.stop(); };

function stop() {
  state.running?.abort();
  hush();
}

async function take(files) {
  for (const file of files) {
    try {
      const kind = kindOf(file);
      if (!(kind in KINDS)) throw new Problem("{name} is no picture, sound or film.", { name: file.name });
      const reason = lack(KINDS[kind]);
      if (reason) throw new Problem(...reason);
      state.attached.push(await read(file));
    } catch (error) {
      showError(problemOf(error));
    }
  }
  showAttached();
  text.focus();
}

async function clear() {
  state.running?.abort();
  state.running = null; // so that the answer being written leaves no trace
  hush();
  state.messages = [];
  state.attached = [];
  log.querySelectorAll("article").forEach((article) => article.remove());
  showAttached();
  text.focus();
  await save([]);
  $("welcome").hidden = Boolean(state.messages.length); // forgotten, unless somebody has written meanwhile
}

// ---- wiring ----

export async function start() {
  $("composer").onsubmit = (event) => { event.preventDefault(); send(); };
  $("stop").onclick = stop;
  $("new").onclick = clear;
  $("files").onchange = async () => { await take([...$("files").files]); $("files").value = ""; };
  $("aloud").ariaPressed = localStorage.aloud ?? "false";
  $("aloud").onclick = () => {
    localStorage.aloud = $("aloud").ariaPressed = String($("aloud").ariaPressed !== "true");
    if ($("aloud").ariaPressed === "false") hush();
  };
  text.oninput = fit;
  text.onkeydown = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  };
  state.messages = await load();
  state.messages.forEach(show);
  scroll();
  fit();
  return { take, stop };
}
