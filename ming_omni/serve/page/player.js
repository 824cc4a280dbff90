// Pieces of 16-bit sound, as they arrive -> the loudspeaker, without gaps; and how much of them has been heard.

const LEAD_SECONDS = 0.05; // after a gap, so that the next piece is there in time

export class Player {
  // onSilence is called whenever everything so far has been heard.
  constructor(rateHz, onSilence = () => {}) {
    this.rateHz = rateHz;
    this.onSilence = onSilence;
    this.context = new AudioContext({ sampleRate: rateHz });
    this.playing = []; // { source, at, seconds }, in order
    this.passed = 0;   // seconds of pieces that have been heard to their end
  }

  push(samples) {
    if (!samples.length) return;
    const buffer = this.context.createBuffer(1, samples.length, this.rateHz);
    buffer.copyToChannel(Float32Array.from(samples, (sample) => sample / 32768), 0);
    const source = this.context.createBufferSource();
    source.buffer = buffer;
    source.connect(this.context.destination);
    const last = this.playing.at(-1), now = this.context.currentTime;
    const at = last && last.at + last.seconds > now ? last.at + last.seconds : now + LEAD_SECONDS;
    const piece = { source, at, seconds: buffer.duration };
    this.playing.push(piece);
    source.onended = () => {
      this.playing = this.playing.filter((other) => other !== piece);
      this.passed += piece.seconds;
      if (!this.playing.length) this.onSilence();
    };
    source.start(at);
  }

  get isPlaying() {
    return this.playing.length > 0;
  }

  // Seconds heard since the last `stop`.
  get heard() {
    const now = this.context.currentTime;
    return this.playing.reduce((sum, { at, seconds }) => sum + Math.min(Math.max(now - at, 0), seconds), this.passed);
  }

  // Silence at once; returns the seconds heard until now.
  stop() {
    const { heard } = this;
    for (const { source } of this.playing) {
      source.onended = null;
      source.stop();
    }
    this.playing = [];
    this.passed = 0;
    return heard;
  }

  close() {
    this.stop();
    this.context.close();
  }
}
