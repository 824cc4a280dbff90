// A WebSocket that speaks OpenAI's Realtime events <-> handlers by the type of the event.

import { Problem } from "./say.js";
import { server } from "./server.js";

export class Realtime {
  // handlers: { "event.type": (event) => ... }; onEnd is called once, when the connection is over.
  constructor(handlers, onEnd) {
    const url = new URL(`v1/realtime?model=${encodeURIComponent(server.model)}`, location.href);
    url.protocol = url.protocol.replace("http", "ws");
    url.hash = "";
    // A browser cannot send headers here; this is how OpenAI's clients pass a key.
    this.socket = new WebSocket(url, localStorage["api-key"] ? ["realtime", `openai-insecure-api-key.${localStorage["api-key"]}`] : []);
    this.socket.onmessage = ({ data }) => {
      const event = JSON.parse(data);
      handlers[event.type]?.(event);
    };
    this.opened = new Promise((resolve, reject) => {
      this.socket.onopen = resolve;
      this.socket.onclose = () => {
        reject(new Problem("The server did not take the call."));
        onEnd();
      };
    });
  }

  send(type, fields = {}) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({ type, ...fields }));
  }

  close() {
    this.socket.close();
  }
}
