// This server's own API: what its model can do, requests to it, its refusals as sentences, its streams as events.

import { Problem } from "./say.js";

export const server = { model: "", capabilities: [] };

export async function connect() {
  const card = (await (await call("v1/models")).json()).data[0];
  server.model = card.id;
  server.capabilities = card.capabilities;
}

// A body is a form, or whatever becomes JSON.
export async function call(path, { body, method = body ? "POST" : "GET", signal } = {}) {
  const isForm = body instanceof FormData;
  const headers = {};
  if (body && !isForm) headers["Content-Type"] = "application/json";
  const key = localStorage["api-key"];
  if (key) headers.Authorization = `Bearer ${key}`;
  let response;
  try {
    response = await fetch(path, { method, headers, signal, body: isForm || !body ? body : JSON.stringify(body) });
  } catch (error) {
    throw error.name === "AbortError" ? error : new Problem("The server cannot be reached.");
  }
  if (response.ok) return response;
  const refusal = await response.json().catch(() => null);
  const error = new Error(sentence(refusal?.error?.message ?? `the server answered ${response.status}`));
  throw Object.assign(error, { status: response.status });
}

// Server-sent events as objects. A stream may also end too soon: whoever reads it knows what its last event is.
export async function* events(response) {
  for await (const line of lines(response)) {
    if (!line.startsWith("data: ") || line === "data: [DONE]") continue;
    const event = JSON.parse(line.slice(6));
    if (event.error) throw new Error(sentence(event.error.message));
    yield event;
  }
}

async function* lines(response) {
  let rest = "";
  for await (const text of pieces(response, new TextDecoder())) {
    const found = (rest + text).split("\n");
    rest = found.pop();
    yield* found;
  }
}

async function* pieces(response, decoder) {
  for await (const bytes of chunks(response)) yield decoder.decode(bytes, { stream: true });
}

// The body as it comes. A connection that is lost before its end is an error.
export async function* chunks(response) {
  for (const reader = response.body.getReader(); ;) {
    let next;
    try {
      next = await reader.read();
    } catch (error) {
      throw error.name === "AbortError" ? error : new Problem("The connection broke off.");
    }
    if (next.done) return;
    yield next.value;
  }
}

export function sentence(text) {
  return `${text[0].toUpperCase()}${text.slice(1)}${/[.!?。]$/.test(text) ? "" : "."}`;
}
