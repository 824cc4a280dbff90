// An answer's text -> paragraphs, code and emphasis. Built from nodes, never from HTML: answers are not trusted.

const FENCE = /^```.*$/m;
const INLINE = /(`[^`\n]+`|\*\*\S(?:[^*\n]*\S)?\*\*)/;

export function write(element, text) {
  const blocks = [];
  // Text and code take turns between fences; a fence still open at the end is code being written.
  text.split(FENCE).forEach((part, index) => {
    if (index % 2) blocks.push(code(part.replace(/^\n/, "").replace(/\n$/, "")));
    else blocks.push(...part.split(/\n{2,}/).filter((p) => p.trim()).map(paragraph));
  });
  element.replaceChildren(...blocks);
}

function paragraph(text) {
  const element = document.createElement("p");
  element.append(...text.replace(/^\n+|\n+$/g, "").split(INLINE).filter(Boolean).map(inline));
  return element;
}

function inline(text) {
  if (text.length > 2 && text.startsWith("`") && text.endsWith("`")) return wrap("code", text.slice(1, -1));
  if (text.length > 4 && text.startsWith("**") && text.endsWith("**")) return wrap("strong", text.slice(2, -2));
  return text;
}

function code(text) {
  const element = document.createElement("pre");
  element.append(wrap("code", text));
  return element;
}

function wrap(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}
