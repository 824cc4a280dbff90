// The page begins here: language and light, tabs and what each of them does, and files that arrive from anywhere.

import * as chat from "./chat.js";
import * as draw from "./draw.js";
import * as edit from "./edit.js";
import { apply } from "./lacks.js";
import { language, learn, problemOf, use } from "./say.js";
import * as segment from "./segment.js";
import { connect, server } from "./server.js";
import * as speak from "./speak.js";
import * as tabs from "./tabs.js";
import * as talk from "./talk.js";
import * as transcribe from "./transcribe.js";

const $ = (id) => document.getElementById(id);
const root = document.documentElement;
const views = {}; // tab -> { stop, take? }

// ---- language, light, settings ----

learn(document.body);
function speakIn(next) {
  use(next);
  const [short, name, tag] = next === "zh" ? ["EN", "English", "en"] : ["中", "中文", "zh"];
  Object.assign($("language"), { textContent: short, title: name, ariaLabel: name, lang: tag });
}
speakIn(language);
$("language").onclick = () => speakIn(language === "zh" ? "en" : "zh");

$("theme").onclick = () => {
  const theme = root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
  localStorage.theme = root.dataset.theme = theme === "dark" ? "light" : "dark";
};
if (localStorage.theme) root.dataset.theme = localStorage.theme;

for (const id of ["system", "temperature", "max-tokens", "api-key"]) {
  $(id).value = localStorage[id] ?? "";
  $(id).onchange = () => { localStorage[id] = $(id).value; };
}
$("api-key").addEventListener("change", () => location.reload());
$("settings-open").onclick = () => $("settings").showModal();

// ---- files from anywhere, and Escape ----

const taker = () => !$(tabs.open).classList.contains("lacking") && views[tabs.open]?.take;
function give(files) {
  if (files.length && taker()) taker()(files);
}
document.onpaste = (event) => {
  const files = [...event.clipboardData.files];
  if (files.length) event.preventDefault();
  give(files);
};
document.ondragover = (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  document.body.classList.toggle("dropping", Boolean(taker()));
};
document.ondragleave = (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); };
document.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  give([...event.dataTransfer.files]);
};
document.onkeydown = (event) => { if (event.key === "Escape" && !$("settings").open) views[tabs.open]?.stop(); };

// ---- tabs ----

function hand(file, tab) {
  tabs.show(tab);
  views[tab].take([file]);
}

views.chat = await chat.start();
tabs.start();
try {
  await connect();
  $("model").textContent = server.model;
  views.talk = talk.start($("talk"));
  views.draw = draw.start($("draw"), hand);
  views.edit = edit.start($("edit"));
  views.segment = segment.start($("segment"));
  views.speak = speak.start($("speak"));
  views.transcribe = transcribe.start($("transcribe"));
  apply();
  await views.speak.refresh();
} catch (error) {
  tabs.show("chat");
  chat.showError(problemOf(error));
  if (error.status === 401) {
    $("settings").showModal();
    $("api-key").focus();
  }
}
root.dataset.ready = "";
