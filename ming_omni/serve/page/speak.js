// A text -> speech that sounds while it is made, and a file to keep: POST /v1/audio/speech.

import { job } from "./job.js";
import { join, wav } from "./pcm.js";
import { Player } from "./player.js";
import { result, save } from "./result.js";
import { call, chunks, server } from "./server.js";
import * as voices from "./voices.js";

const RATE_HZ = 24000; // of the server's bare samples

export function start(panel) {
  const form = panel.querySelector("form"), list = panel.querySelector(".results");
  const shelf = voices.start(panel);
  let player = null;

  async function speak(signal, tell) {
    const { input, voice, speed } = Object.fromEntries(new FormData(form)), started = performance.now();
    const body = { model: server.model, input, voice, speed: Number(speed), response_format: "pcm" };
    const pieces = [];
    let first = 0, length = 0;
    player ??= new Player(RATE_HZ);
    player.stop();
    signal.addEventListener("abort", () => player.stop());
    for await (const samples of whole(chunks(await call("v1/audio/speech", { body, signal })))) {
      first ||= performance.now();
      pieces.push(samples);
      player.push(samples);
      length += samples.length / RATE_HZ;
      tell(...pace(length, started, first));
    }
    const notes = pace(length, started, first);
    const url = URL.createObjectURL(wav(join(pieces), RATE_HZ)), sound = new Audio(url);
    sound.controls = true;
    result(list, sound, input, notes, save(url, "speech.wav"));
    // It can be stopped as long as it sounds.
    if (player.isPlaying) await new Promise((resolve) => { player.onSilence = signal.onabort = resolve; });
  }

  const speaking = job(form, speak);
  return {
    stop() {
      speaking.stop();
      shelf.stop();
      player?.stop();
    },
    take: shelf.take,
    refresh: shelf.refresh,
  };
}

// How fast: the time that the making of a sound took, over the time that the sound takes.
function pace(length, started, first) {
  const factor = ((performance.now() - started) / 1000 / length).toFixed(2);
  return [
    ["{length} s of speech", { length: length.toFixed(1) }],
    ["{factor} × real time", { factor }],
    ["first sound after {seconds} s", { seconds: ((first - started) / 1000).toFixed(2) }],
  ];
}

// Bytes as they come -> samples: a piece may end in the middle of one.
async function* whole(pieces) {
  let rest = new Uint8Array();
  for await (const piece of pieces) {
    const bytes = new Uint8Array(rest.length + piece.length);
    bytes.set(rest);
    bytes.set(piece, rest.length);
    const end = bytes.length - (bytes.length % 2);
    rest = bytes.slice(end);
    if (end) yield new Int16Array(bytes.buffer.slice(0, end));
  }
}
