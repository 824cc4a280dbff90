// What a person writes, pastes or drops -> a request; the events that come back -> text, as they arrive.

import { read } from "./media.js";
import { write } from "./text.js";
import { load, save } from "./store.js";

const $ = (id) => document.getElementById(id);
const log = $("log"), text = $("text");

const state = {
  messages: [],    // as OpenAI writes them; answers also carry `note`, what their footer says
  attached: [],    // parts for the next message
  model: "",
  running: null,   // AbortController of the answer being written
};

// ---- showing ----

function partsOf(message) {
  return typeof message.content === "string" ? [{ type: "text", text: message.content }] : message.content;
}

function medium(part) {
  const isPicture = part.type === "image_url";
  const element = document.createElement(isPicture ? "img" : "audio");
  element.src = isPicture ? part.image_url.url : `data:audio/${part.input_audio.format};base64,${part.input_audio.data}`;
  if (isPicture) element.alt = "attached picture";
  else element.controls = true;
  return element;
}

function show(message) {
  $("welcome")?.remove();
  const article = $("message").content.firstElementChild.cloneNode(true);
  article.className = message.role;
  const parts = partsOf(message);
  article.querySelector(".media").replaceChildren(...parts.filter((p) => p.type !== "text").map(medium));
  write(article.querySelector(".text"), parts.filter((p) => p.type === "text").map((p) => p.text).join(""));
  article.querySelector("footer").textContent = message.note ?? "";
  log.append(article);
  return article;
}

function showError(sentence) {
  const article = show({ role: "error", content: sentence });
  article.setAttribute("role", "alert");
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
    remove.setAttribute("aria-label", "Remove attachment");
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

async function* events(response) {
  let rest = "";
  const decoder = new TextDecoder();
  for (const reader = response.body.getReader(); ;) {
    const { done, value } = await reader.read();
    if (done) return;
    const lines = (rest + decoder.decode(value, { stream: true })).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line.startsWith("data: ") && line !== "data: [DONE]") yield JSON.parse(line.slice(6));
    }
  }
}

function request() {
  const system = $("system").value.trim();
  const messages = state.messages.map(({ role, content }) => ({ role, content }));
  const body = { model: state.model, messages, stream: true, stream_options: { include_usage: true } };
  if (system) messages.unshift({ role: "system", content: system });
  if ($("temperature").value) body.temperature = Number($("temperature").value);
  if ($("max-tokens").value) body.max_tokens = Number($("max-tokens").value);
  return body;
}

// How fast: tokens after the first one, over the time since it came.
function speed(numTokens, started, first, ended) {
  if (!first) return "";
  const seconds = (ended - first) / 1000;
  const rate = numTokens > 1 && seconds > 0 ? `${((numTokens - 1) / seconds).toFixed(1)} tokens/s · ` : "";
  return `${rate}${numTokens} ${numTokens === 1 ? "token" : "tokens"} · first after ${((first - started) / 1000).toFixed(2)} s`;
}

async function answer() {
  const message = { role: "assistant", content: "", note: "" };
  const article = show(message), started = performance.now();
  let first = 0, numTokens = 0, reason = null, failure = null;
  const running = state.running = new AbortController();
  article.classList.add("writing");
  showButtons();
  scroll();
  const draw = () => {
    const follow = isAtEnd();
    write(article.querySelector(".text"), message.content);
    message.note = speed(numTokens, started, first, performance.now());
    article.querySelector("footer").textContent = message.note;
    if (follow) scroll();
  };
  let drawing = 0;
  try {
    const response = await fetch("v1/chat/completions", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify(request()),
      signal: running.signal,
    });
    if (!response.ok) throw new Error((await response.json()).error.message);
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      if (event.usage) numTokens = event.usage.completion_tokens;
      if (choice?.delta.content) {
        first ||= performance.now();
        numTokens += 1;
        message.content += choice.delta.content;
        drawing ||= requestAnimationFrame(() => { drawing = 0; draw(); });
      }
      reason = choice?.finish_reason ?? reason;
    }
  } catch (error) {
    if (error.name === "AbortError") reason = "stopped";
    else failure = error.message || "the server cannot be reached";
  }
  cancelAnimationFrame(drawing);
  if (state.running !== running) return;
  draw();
  const remarks = { length: "cut at the limit", stopped: "stopped" };
  message.note = [message.note, remarks[reason]].filter(Boolean).join(" · ");
  article.querySelector("footer").textContent = message.note;
  article.classList.remove("writing");
  state.running = null;
  if (message.content) state.messages.push(message);
  else article.remove();
  if (failure) {
    showError(`${failure[0].toUpperCase()}${failure.slice(1)}.`);
    if (!message.content) takeBack();
  }
  showButtons();
  save(state.messages);
}

// What could not be answered returns to where it was written.
function takeBack() {
  const message = state.messages.pop();
  const parts = partsOf(message);
  state.attached = parts.filter((part) => part.type !== "text");
  text.value = parts.filter((part) => part.type === "text").map((part) => part.text).join("");
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
  answer();
}

async function attach(files) {
  for (const file of files) {
    try {
      state.attached.push(await read(file));
    } catch (error) {
      showError(error.message);
    }
  }
  showAttached();
  text.focus();
}

async function clear() {
  state.running?.abort();
  state.running = null; // so that the answer being written leaves no trace
  await save([]);
  location.reload();
}

// ---- wiring ----

$("composer").onsubmit = (event) => { event.preventDefault(); send(); };
$("stop").onclick = () => state.running?.abort();
$("new").onclick = clear;
$("settings-open").onclick = () => $("settings").showModal();
$("settings").onclose = () => text.focus();
$("files").onchange = async () => { await attach([...$("files").files]); $("files").value = ""; };
text.oninput = fit;
text.onkeydown = (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  send();
};
document.onkeydown = (event) => { if (event.key === "Escape" && !$("settings").open) state.running?.abort(); };

document.onpaste = (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) { event.preventDefault(); attach(files); }
};
document.ondragover = (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  document.body.classList.add("dropping");
};
document.ondragleave = (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); };
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  attach([...event.dataTransfer.files]);
};

const root = document.documentElement;
$("theme").onclick = () => {
  const isDark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  localStorage.theme = root.dataset.theme = isDark ? "light" : "dark";
};
if (localStorage.theme) root.dataset.theme = localStorage.theme;
for (const id of ["system", "temperature", "max-tokens"]) {
  $(id).value = localStorage[id] ?? "";
  $(id).onchange = () => { localStorage[id] = $(id).value; };
}

state.messages = await load();
state.messages.forEach(show);
scroll();
fit();
try {
  state.model = (await (await fetch("v1/models")).json()).data[0].id;
  $("model").textContent = state.model;
} catch {
  showError("The server cannot be reached.");
}
