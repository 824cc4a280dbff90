// English, as the page and its scripts write it -> the chosen language, now and whenever the choice changes.

import { chinese } from "./zh.js";

const ATTRIBUTES = ["title", "aria-label", "placeholder"];
const texts = new WeakMap();       // text node -> its sentences
const attributes = new WeakMap();  // element -> { attribute: English }

export let language = localStorage.language ?? (navigator.language.startsWith("zh") ? "zh" : "en");

// A sentence is English, or [English with {names}, { names: values }].
export function say(sentence) {
  const [english, values] = typeof sentence === "string" ? [sentence, {}] : sentence;
  const text = language === "zh" ? chinese[english] ?? english : english;
  return text.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);
}

// Something the person at the page can mend.
export class Problem extends Error {
  constructor(english, values = {}) {
    super(english);
    this.sentence = [english, values];
  }
}

// What went wrong, as a sentence; the server's own come as they are.
export const problemOf = (error) => error.sentence ?? error.message;

// Fill an element with sentences.
export function put(element, ...sentences) {
  const node = document.createTextNode("");
  texts.set(node, sentences);
  element.replaceChildren(node);
  write(node);
}

export function label(element, attribute, english) {
  attributes.set(element, { ...attributes.get(element), [attribute]: english });
  element.setAttribute(attribute, say(english));
}

// Learn what the page itself says; whatever is marked translate="no" belongs to people or to the model.
export function learn(root) {
  const walker = document.createTreeWalker(root, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT, (node) =>
    node.translate === false ? NodeFilter.FILTER_REJECT : NodeFilter.FILTER_ACCEPT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (node.nodeType === Node.TEXT_NODE) {
      if (/\p{L}/u.test(node.data)) texts.set(node, [node.data.trim()]);
    } else {
      const found = ATTRIBUTES.filter((name) => node.hasAttribute(name));
      if (found.length) attributes.set(node, Object.fromEntries(found.map((name) => [name, node.getAttribute(name)])));
    }
  }
}

export function use(next) {
  localStorage.language = language = next;
  document.documentElement.lang = next === "zh" ? "zh-CN" : "en";
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_ELEMENT | NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode;
    if (texts.has(node)) write(node);
    for (const [name, english] of Object.entries(attributes.get(node) ?? {})) node.setAttribute(name, say(english));
  }
}

function write(node) {
  node.data = texts.get(node).map(say).join(" · ");
}
