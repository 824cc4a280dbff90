// The camera -> what it sees on the page, and single frames as data: URLs.

import { Problem } from "./say.js";

const MAX_SIDE = 512, QUALITY = 0.8;

export class Camera {
  constructor(video) {
    this.video = video;
  }

  get isOn() {
    return Boolean(this.video.srcObject);
  }

  async start() {
    if (!navigator.mediaDevices) throw new Problem("Browsers lend the camera to https and localhost only.");
    try {
      const video = { width: 640, facingMode: "environment" };
      this.video.srcObject = await navigator.mediaDevices.getUserMedia({ video });
    } catch (error) {
      throw new Problem(error.name === "NotAllowedError" ? "The camera was not allowed." : "There is no camera.");
    }
    this.video.hidden = false;
    await this.video.play();
  }

  stop() {
    for (const track of this.video.srcObject?.getTracks() ?? []) track.stop();
    this.video.srcObject = null;
    this.video.hidden = true;
  }

  frame() {
    const { videoWidth, videoHeight } = this.video;
    const scale = Math.min(1, MAX_SIDE / Math.max(videoWidth, videoHeight));
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(videoWidth * scale);
    canvas.height = Math.round(videoHeight * scale);
    canvas.getContext("2d").drawImage(this.video, 0, 0, canvas.width, canvas.height);
    return canvas.toDataURL("image/jpeg", QUALITY);
  }
}
