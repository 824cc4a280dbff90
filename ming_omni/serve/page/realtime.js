// A WebSocket that speaks OpenAI's Realtime events <-> handlers by the type of the event.

import { Problem } from "./say.js";
import { server } from "./server.js";

export class Realtime {
  // handlers: { "event.type": (event) => ... }; onEnd is called when the other side, or the network, ends it.
  constructor(handlers, onEnd) {
    const url = new URL(`v1/realtime?model=${encodeURIComponent(server.model)}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.hash = "";
    // A browser cannot send headers here; this is how OpenAI's clients pass a key.
    const key = localStorage["api-key"];
    this.socket = new WebSocket(url, key ? ["realtime", `openai-insecure-api-key.${key}`] : []);
    this.socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      handlers[event.type]?.(event);
    };
    this.opened = new Promise((resolve, reject) => {
      this.socket.onclose = () => reject(new Problem("The server did not take the call."));
      this.socket.onopen = () => {
        this.socket.onclose = onEnd;
        resolve();
      };
    });
  }

  send(type, fields = {}) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  // Nothing that still arrives is of interest.
  close() {
    this.socket.onmessage = this.socket.onclose = null;
    this.socket.close();
  }
}
