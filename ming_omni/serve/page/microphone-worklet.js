// Samples at the sound card's rate -> 16-bit pieces of 40 ms at 24 kHz, on the audio thread.

const RATE_HZ = 24000, PIECE = 960;

class ToPcm16 extends AudioWorkletProcessor {
  constructor() {
    super();
    this.step = sampleRate / RATE_HZ; // input samples for each output sample
    this.left = this.step;            // of them still to come for the one being made
    this.sum = 0;
    this.piece = new Int16Array(PIECE);
    this.length = 0;
  }

  // Each output sample is the mean of the input that it stands for, which also keeps high tones from folding down.
  process([[samples]]) {
    for (const sample of samples ?? []) {
      let share = 1;
      while (share >= this.left) {
        this.put((this.sum + sample * this.left) / this.step);
        share -= this.left;
        this.left = this.step;
        this.sum = 0;
      }
      this.sum += sample * share;
      this.left -= share;
    }
    return true;
  }

  put(value) {
    this.piece[this.length++] = Math.max(-1, Math.min(1, value)) * 32767;
    if (this.length < PIECE) return;
    this.port.postMessage(this.piece, [this.piece.buffer]);
    this.piece = new Int16Array(PIECE);
    this.length = 0;
  }
}

registerProcessor("to-pcm16", ToPcm16);
