// What came of a request -> a figure at the head of a list: the thing, what was asked, how fast, and what to do next.

import { put } from "./say.js";

// actions are elements: links and buttons.
export function result(list, thing, caption, notes, ...actions) {
  const figure = document.createElement("figure"), about = document.createElement("figcaption");
  const asked = document.createElement("p"), note = document.createElement("p"), row = document.createElement("div");
  asked.textContent = caption;
  asked.translate = false;
  note.className = "note";
  put(note, ...notes);
  row.className = "act";
  row.append(...actions);
  about.append(...(caption ? [asked] : []), note, row);
  figure.append(thing, about);
  list.prepend(figure);
  // Only pictures that are there have a height to scroll to.
  Promise.allSettled([...figure.querySelectorAll("img")].map((image) => image.decode()))
    .then(() => figure.scrollIntoView({ block: "nearest" }));
  return figure;
}

export function save(url, name, sentence = "Save") {
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.className = "plain button";
  put(link, sentence);
  return link;
}

export function button(english, act) {
  const element = document.createElement("button");
  element.type = "button";
  element.className = "plain";
  put(element, english);
  element.onclick = act;
  return element;
}

export function blob(base64, type = "image/png") {
  return new Blob([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], { type });
}
