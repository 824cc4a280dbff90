// The microphone -> pieces of 16-bit sound at 24 kHz, and how loud each one is.

import { Problem } from "./say.js";

export const RATE_HZ = 24000;

export async function listen(onPiece) {
  if (!navigator.mediaDevices) throw new Problem("Browsers lend the microphone to https and localhost only.");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({
      audio: { channelCount: 1, echoCancellation: true, noiseSuppression: true, autoGainControl: true },
    });
  } catch (error) {
    throw new Problem(error.name === "NotAllowedError" ? "The microphone was not allowed." : "There is no microphone.");
  }
  const context = new AudioContext();
  await context.audioWorklet.addModule(new URL("microphone-worklet.js", import.meta.url));
  const worklet = new AudioWorkletNode(context, "to-pcm16", { numberOfOutputs: 0 });
  worklet.port.onmessage = ({ data }) => onPiece(data, loudness(data));
  context.createMediaStreamSource(stream).connect(worklet);
  return {
    mute(isMuted) {
      for (const track of stream.getAudioTracks()) track.enabled = !isMuted;
    },
    stop() {
      worklet.port.onmessage = null;
      for (const track of stream.getTracks()) track.stop();
      context.close();
    },
  };
}

// 0 for silence to 1 for full scale, on a scale of decibels as ears have it.
function loudness(samples) {
  const power = samples.reduce((sum, sample) => sum + sample * sample, 0) / samples.length / 32768 ** 2;
  return Math.max(0, 1 + Math.log10(power + 1e-9) / 5);
}
