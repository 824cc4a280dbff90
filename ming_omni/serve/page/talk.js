// Microphone and camera -> a conversation over /v1/realtime: live transcript, spoken answers, and interruption.

import { Camera } from "./camera.js";
import { can } from "./lacks.js";
import { listen, RATE_HZ } from "./microphone.js";
import { fromBase64, toBase64 } from "./pcm.js";
import { Player } from "./player.js";
import { Realtime } from "./realtime.js";
import { problemOf, put } from "./say.js";
import { sentence } from "./server.js";
import { write } from "./text.js";
import { voice } from "./voices.js";

const SILENCE_MS = 500;     // that end a turn
const FRAME_EVERY_MS = 1500; // while somebody speaks
const MOST_TOKENS = 4096;   // of one answer, as the events have it

export function start(panel) {
  const part = (name) => panel.querySelector(`.${name}`);
  const log = part("log"), problem = part("problem");
  const camera = new Camera(part("camera"));
  let call = null; // { socket, microphone, player, ... } while a conversation goes on

  // ---- beginning and ending ----

  async function begin() {
    problem.replaceChildren();
    part("mute").ariaPressed = "false";
    const now = call = { entries: new Map(), answer: null, sentMs: 0, stoppedMs: 0, filming: 0 };
    showButtons();
    state("Connecting …");
    try {
      now.player = new Player(RATE_HZ, () => now === call && !now.answer?.isOpen && rest());
      now.socket = new Realtime(handlers, () => now === call && end(now.fault ?? "The conversation was cut off."));
      await now.socket.opened;
      now.socket.send("session.update", { session: session() });
      now.microphone = await listen(hear);
      if (now !== call) now.microphone.stop(); // somebody ended the conversation while it began
      else state("Listening");
    } catch (error) {
      if (now === call) end(problemOf(error));
    }
    showButtons();
  }

  function session() {
    const format = { type: "audio/pcm", rate: RATE_HZ }, [system, most] = ["system", "max-tokens"].map(setting);
    return {
      type: "realtime",
      output_modalities: [can("speech_out") ? "audio" : "text"],
      ...(system && { instructions: system }),
      ...(most && { max_output_tokens: Math.min(Number(most), MOST_TOKENS) }),
      audio: {
        input: { format, transcription: {}, turn_detection: { type: "server_vad", silence_duration_ms: SILENCE_MS } },
        output: { format, voice: voice() },
      },
    };
  }

  const setting = (id) => document.getElementById(id).value.trim();

  function end(reason) {
    const last = call;
    call = null;
    clearInterval(last.filming);
    last.microphone?.stop();
    last.player?.close();
    last.socket?.close();
    camera.stop();
    part("level").style.setProperty("--level", 0);
    part("state").replaceChildren();
    if (reason) put(problem, reason);
    showButtons();
  }

  // ---- hearing and seeing ----

  function hear(samples, loudness) {
    part("level").style.setProperty("--level", loudness);
    call.sentMs += (1000 * samples.length) / RATE_HZ;
    call.sentAt = performance.now();
    call.socket.send("input_audio_buffer.append", { audio: toBase64(samples) });
  }

  function look() {
    if (!camera.isOn) return;
    const content = [{ type: "input_image", image_url: camera.frame() }];
    call.socket.send("conversation.item.create", { item: { type: "message", role: "user", content } });
  }

  // ---- what the server says ----

  const handlers = {
    "input_audio_buffer.speech_started"({ item_id }) {
      interrupt(true);
      state("You are speaking");
      entry(item_id, "user");
      look();
      clearInterval(call.filming);
      call.filming = setInterval(look, FRAME_EVERY_MS);
    },
    "input_audio_buffer.speech_stopped"({ audio_end_ms }) {
      clearInterval(call.filming);
      call.stoppedMs = audio_end_ms - SILENCE_MS;
      state("Thinking");
    },
    "conversation.item.input_audio_transcription.delta"({ item_id, delta }) {
      add(entry(item_id, "user"), delta);
    },
    "conversation.item.input_audio_transcription.completed"({ item_id, transcript }) {
      fill(entry(item_id, "user"), transcript);
      if (!transcript) note(entry(item_id, "user"), "not understood");
      close(entry(item_id, "user"));
    },
    "conversation.item.input_audio_transcription.failed"({ item_id }) {
      fill(entry(item_id, "user"), "");
      close(entry(item_id, "user"));
      note(entry(item_id, "user"), "not understood");
    },
    "conversation.item.deleted"({ item_id }) {
      if (call.entries.has(item_id)) note(call.entries.get(item_id), "no longer remembered");
    },
    "response.output_item.added"({ item }) {
      if (item.type !== "message") return;
      call.answer = Object.assign(entry(item.id, "assistant"), { id: item.id, isOpen: true });
      showButtons();
    },
    "response.output_audio_transcript.delta": written,
    "response.output_text.delta": written,
    "response.output_audio.delta"({ item_id, delta }) {
      const answer = call.entries.get(item_id);
      if (answer.isCut) return;
      if (!answer.hasSounded) {
        answer.hasSounded = true;
        note(answer, ["first sound after {seconds} s", { seconds: sinceSpeech() }]);
        call.player.stop(); // what is heard is counted from here
      }
      call.player.push(fromBase64(delta));
      state("Speaking");
    },
    "response.done"({ response }) {
      const answer = call.entries.get(response.output[0]?.id);
      if (answer) close(answer);
      const fault = response.status_details?.error?.message;
      if (fault) put(problem, sentence(fault));
      if (response.status === "incomplete" && answer) note(answer, "cut at the limit");
      if (answer === call.answer && !call.player.isPlaying) rest();
    },
    // The server has cut its own record of the answer to what was heard: the page shows the same.
    "conversation.item.truncated"({ item_id }) {
      call.socket.send("conversation.item.retrieve", { item_id });
    },
    "conversation.item.retrieved"({ item }) {
      fill(entry(item.id, item.role), item.content.map((part) => part.transcript ?? part.text ?? "").join(""));
    },
    error({ error }) {
      call.fault = sentence(error.message);
      put(problem, call.fault);
    },
  };

  function written({ item_id, delta }) {
    const answer = call.entries.get(item_id);
    if (!answer.isCut) add(answer, delta);
  }

  // Seconds from the end of what somebody said until now, on the clock of the samples that were sent.
  function sinceSpeech() {
    const passed = performance.now() - call.sentAt + call.sentMs - call.stoppedMs;
    return (passed / 1000).toFixed(2);
  }

  function interrupt(bySpeech) {
    if (!isAnswering()) return;
    const { answer, player, socket } = call;
    const seconds = player.stop();
    // Where speech interrupts, the server has ended the answer by itself; what was heard of it only this page knows.
    if (answer.hasSounded) {
      const audio_end_ms = Math.floor(1000 * seconds);
      socket.send("conversation.item.truncate", { item_id: answer.id, content_index: 0, audio_end_ms });
    } else if (!bySpeech) socket.send("response.cancel");
    answer.isCut = true;
    close(answer);
    note(answer, "interrupted");
    rest();
  }

  const isAnswering = () => Boolean(call?.answer && (call.answer.isOpen || call.player.isPlaying));

  // Nothing is to be said any more.
  function rest() {
    call.answer = null;
    state("Listening");
    showButtons();
  }

  // ---- showing ----

  function entry(id, role) {
    const known = call.entries.get(id);
    if (known) return known;
    const article = document.getElementById("message").content.firstElementChild.cloneNode(true);
    const made = { article, text: "", notes: [], isCut: false };
    part("welcome").hidden = true;
    article.className = `${role} writing`;
    article.ariaBusy = "true"; // whoever listens to the page hears an entry once it is whole
    log.append(article);
    log.scrollTop = log.scrollHeight;
    call.entries.set(id, made);
    return made;
  }

  function close(item) {
    item.isOpen = false;
    item.article.ariaBusy = "false";
    item.article.classList.remove("writing");
  }

  function add(item, text) {
    fill(item, item.text + text);
  }

  function fill(item, text) {
    item.text = text;
    item.article.classList.remove("writing");
    write(item.article.querySelector(".text"), text);
    log.scrollTop = log.scrollHeight;
  }

  function note(item, sentence) {
    item.notes.push(sentence);
    put(item.article.querySelector("footer"), ...item.notes);
  }

  function state(english) {
    part("state").dataset.state = english;
    put(part("state"), english);
  }

  function showButtons() {
    const hadFocus = part("act").contains(document.activeElement);
    part("begin").hidden = Boolean(call);
    part("end").hidden = part("mute").hidden = !call;
    part("interrupt").hidden = !isAnswering();
    part("see").setAttribute("aria-pressed", String(camera.isOn));
    if (hadFocus && document.activeElement === document.body) (call ? part("end") : part("begin")).focus();
  }

  // ---- wiring ----

  part("begin").onclick = begin;
  part("end").onclick = () => end();
  part("interrupt").onclick = () => interrupt(false);
  part("mute").onclick = () => {
    const isMuted = part("mute").ariaPressed !== "true";
    part("mute").ariaPressed = String(isMuted);
    call.microphone?.mute(isMuted);
  };
  part("see").onclick = async () => {
    problem.replaceChildren();
    try {
      if (camera.isOn) camera.stop();
      else await camera.start();
    } catch (error) {
      put(problem, problemOf(error));
    }
    showButtons();
  };
  if (!can("image_in")) part("see").hidden = true;

  // Escape first interrupts the answer; with nothing to interrupt it ends the conversation.
  return {
    stop() {
      if (!call) return;
      if (isAnswering()) interrupt(false);
      else end();
    },
  };
}
